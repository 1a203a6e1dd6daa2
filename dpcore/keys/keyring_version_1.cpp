#include "dpcore/keys/keyring_version_1.h"

#include <set>
#include <string>

#include "dpcore/error.h"
#include "dpcore/keys/bytes.h"
#include "dpcore/keys/kdf.h"
#include "dpcore/keys/key_wrap.h"
#include "dpcore/keys/names.h"
#include "dpcore/keys/new_keyring.h"
#include "dpcore/keys/utc_time.h"

namespace hushgrad {
namespace {

constexpr std::size_t kKeyBytes = 32, kIdBytes = 16;
constexpr std::string_view kFirstLine = "hushgrad keyring 1\n";
constexpr std::string_view kDigestLabel = "sha384 ";

[[noreturn]] void malformed(const char* what) {
  throw KeyError(message("[keyring] Expected ", what, ", received something else. Restore the keyring from a backup."));
}

// Cuts the next token that ends in `end` off `text`; the end itself is dropped.
std::string_view take(std::string_view& text, char end) {
  const auto length = text.find(end);
  if (length == text.npos) malformed("complete lines of five fields");
  const std::string_view token = text.substr(0, length);
  text.remove_prefix(length + 1);
  return token;
}

KeyRecord key_from(std::string_view& rest, const SecretBytes& tenant_key) {
  const std::string_view id = take(rest, ' ');
  const std::string_view created = take(rest, ' ');
  const std::string_view state = take(rest, ' ');
  const std::string_view digits = take(rest, ' ');
  const std::string_view dataset = take(rest, '\n');
  const auto time = utc_seconds(created);
  if (!is_hex(id, kIdBytes) || !is_plain_name(dataset) || !time || !is_hex(digits, kKeyBytes) ||
      (state != "active" && state != "retired")) {
    malformed("an id, time, state, key and dataset in each line");
  }
  SecretBytes secret(kKeyBytes);
  from_hex(digits, secret.bytes());
  KeyRecord key;
  key.id = id;
  key.tenant = kDefaultTenant;
  key.dataset = dataset;
  key.state = state == "active" ? key_state::kActive : key_state::kDeactivated;
  key.wrapped = aes256_kwp_wrap(tenant_key.bytes(), secret.bytes());
  key.changes.push_back({key.state, *time, "", ""});
  return key;
}

}  // namespace

bool is_version_1(std::string_view text) { return text.starts_with(kFirstLine); }

std::pair<KeyringModel, RootKey> parse_version_1(std::string_view all) {
  const std::size_t tail_size = kDigestLabel.size() + 2 * sizeof(Sha384) + 1;
  if (all.size() < kFirstLine.size() + tail_size) malformed("a whole keyring");
  const std::string_view body = all.substr(0, all.size() - tail_size);
  const std::string expected_tail = std::string(kDigestLabel) + to_hex(sha384(text_bytes(body))) + "\n";
  if (all.substr(body.size()) != expected_tail) malformed("a keyring whose SHA-384 fits its text");

  RootKey root = RootKey::random();
  KeyringModel model = new_keyring_model(root, {});
  const SecretBytes tenant_key = add_tenant_key(model, root, kDefaultTenant, model.changed, "");
  std::set<std::string> ids, active;
  std::string_view rest = body.substr(kFirstLine.size());
  while (!rest.empty()) {
    KeyRecord key = key_from(rest, tenant_key);
    if (!ids.insert(key.id).second) malformed("each key id once");
    if (key.state == key_state::kActive && !active.insert(key.dataset).second) malformed("one active key a dataset");
    model.keys.push_back(std::move(key));
  }
  model.generation = 0;
  return {std::move(model), std::move(root)};
}

}  // namespace hushgrad
