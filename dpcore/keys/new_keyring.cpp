#include "dpcore/keys/new_keyring.h"

#include <array>

#include "dpcore/error.h"
#include "dpcore/keys/bytes.h"
#include "dpcore/keys/key_wrap.h"
#include "dpcore/keys/utc_time.h"

namespace hushgrad {

std::string random_id() {
  std::array<std::byte, 16> bytes;
  fill_random(bytes);
  return to_hex(bytes);
}

KeyringModel new_keyring_model(const RootKey& root, const KeyringProtection& protection) {
  const SigningKey log_key = SigningKey::generate();
  KeyringModel model;
  model.id = random_id();
  model.generation = 1;
  model.changed = utc_now();
  model.protection = protection;
  model.log_key_pem = log_key.public_key().pem();
  model.log_key = root.wrap(log_key.pkcs8().bytes());
  model.log_hash = std::string(96, '0');
  return model;
}

SecretBytes add_tenant_key(KeyringModel& model, const RootKey& root, const std::string& tenant, std::int64_t now,
                           const std::string& actor) {
  SecretBytes secret = SecretBytes::random(32);
  KeyRecord key;
  key.id = random_id();
  key.tenant = tenant;
  key.state = key_state::kActive;
  key.wrapped = root.wrap(secret.bytes());
  key.changes.push_back({key.state, now, actor, ""});
  model.keys.push_back(std::move(key));
  return secret;
}

SecretBytes open_tenant_key(const KeyringModel& model, const RootKey& root, const std::string& tenant) {
  const KeyRecord* key = model.tenant_key(tenant);
  if (key == nullptr) {
    throw KeyError(message("[keyring] Expected a key of tenant ", tenant, ", received none: it was destroyed."));
  }
  return root.unwrap(key->wrapped);
}

SecretBytes open_key(const KeyringModel& model, const RootKey& root, const KeyRecord& key) {
  if (key.wrapped.empty()) {
    throw KeyError(message("[keyring] Expected a key that exists, received ", key.id,
                           ", which was destroyed. What was sealed under it cannot be opened any more."));
  }
  auto secret = aes256_kwp_unwrap(open_tenant_key(model, root, key.tenant).bytes(), key.wrapped);
  if (!secret || secret->size() != 32) {
    throw KeyError(message("[keyring] Expected key ", key.id, " intact, received an altered one. Restore the keyring."));
  }
  return std::move(*secret);
}

SigningKey open_log_key(const KeyringModel& model, const RootKey& root) {
  return SigningKey::from_pkcs8(root.unwrap(model.log_key).bytes());
}

}  // namespace hushgrad
