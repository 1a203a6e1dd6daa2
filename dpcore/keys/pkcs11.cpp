#include "dpcore/keys/pkcs11.h"

#include <algorithm>
#include <optional>
#include <tuple>
#include <utility>

#include "dpcore/error.h"
#include "dpcore/keys/bytes.h"
#include "dpcore/keys/keyring_model.h"
#include "dpcore/keys/names.h"
#include "dpcore/keys/new_keyring.h"
#include "dpcore/keys/pkcs11_client.h"
#include "dpcore/keys/self_test.h"
#include "dpcore/keys/utc_time.h"

namespace hushgrad {
namespace {

using namespace key_state;
using pkcs11::Message;

// A label is "hushgrad 1", state, time, tenant, dataset, with a separator that no name holds.
constexpr char kSeparator = '\x1f';
constexpr const char* kFormat = "hushgrad 1";

std::string label_of(const KeyInfo& key) {
  std::string label = kFormat;
  for (const std::string* part : {&key.state, &key.created, &key.tenant, &key.dataset}) label += kSeparator + *part;
  return label;
}

// Nothing for keys that others keep on the token.
std::optional<KeyInfo> key_from(const std::string& id, const std::string& label) {
  std::vector<std::string> parts{""};
  for (char c : label) {
    if (c == kSeparator) {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  if (id.size() != 16 || parts.size() != 5 || parts[0] != kFormat || !is_plain_name(parts[3]) || !is_plain_name(parts[4])) {
    return std::nullopt;
  }
  return KeyInfo{to_hex(text_bytes(id)), parts[4], parts[2], parts[1], parts[3], ""};
}

std::string raw(const std::string& key_id) {
  if (!is_hex(key_id, 16)) throw KeyError("[pkcs11] Expected a key id of 32 hexadecimal digits, received another.");
  std::string bytes(16, '\0');
  from_hex(key_id, std::as_writable_bytes(std::span(bytes)));
  return bytes;
}

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

struct Pkcs11::State {
  std::string name;
  pkcs11::Client client;
};

Pkcs11::Pkcs11(const std::string& module, const std::string& token, SecretBytes pin, int seconds) {
  require_self_tests();
  if (token.empty() || token.size() > 32) throw InvalidArgument("[pkcs11] Expected a token label of 1..32 bytes.");
  state_ = std::unique_ptr<State>(
      new State{"pkcs11 token " + token + " of " + module, {module, token, std::move(pin), seconds}});
}

Pkcs11::~Pkcs11() = default;

std::string Pkcs11::name() const { return state_->name; }

std::vector<KeyInfo> Pkcs11::list() const {
  const Message entries = state_->client.ask({"list"});
  std::vector<KeyInfo> keys;
  for (std::size_t i = 0; i + 1 < entries.size(); i += 2) {
    if (auto key = key_from(entries[i], entries[i + 1])) keys.push_back(std::move(*key));
  }
  std::sort(keys.begin(), keys.end(), [](const KeyInfo& a, const KeyInfo& b) {
    return std::tie(a.created, a.dataset, a.id) < std::tie(b.created, b.dataset, b.id);
  });
  return keys;
}

KeyInfo Pkcs11::key(const std::string& key_id) const {
  for (KeyInfo& key : list()) {
    if (key.id == key_id) return key;
  }
  throw KeyError(message("[pkcs11] Expected key ", key_id, " on ", name(),
                         ", received none of that id. Use the token that holds the key of this dataset."));
}

KeyInfo Pkcs11::active(const std::string& dataset) const {
  std::vector<KeyInfo> keys = list();
  for (auto key = keys.rbegin(); key != keys.rend(); ++key) {
    if (key->dataset == dataset && key->state == kActive) return *key;
  }
  throw KeyError(message("[pkcs11] Expected an active key of dataset ", dataset, " on ", name(),
                         ", received none. Create one, or resume it."));
}

WrappedKey Pkcs11::wrap(const std::string& dataset, std::span<const std::byte> data_key) const {
  if (data_key.size() != 32) {
    throw InvalidArgument(message("[pkcs11] Expected a data key of 32 bytes, received ", data_key.size(), "."));
  }
  const KeyInfo key = active(dataset);
  const Message answer = state_->client.ask({"wrap", raw(key.id), text_of(data_key)});
  if (answer.size() != 1 || answer[0].size() != 40) {
    throw KeyError("[pkcs11] Expected 40 wrapped bytes of the token, received another answer.");
  }
  const auto bytes = text_bytes(answer[0]);
  return {key.id, {bytes.begin(), bytes.end()}, 0};
}

SecretBytes Pkcs11::unwrap(const WrappedKey& wrapped) const {
  const KeyInfo found = key(wrapped.key_id);
  if (found.state != kActive && found.state != kDeactivated) {
    throw KeyError(message("[pkcs11] Expected a key that may open files, received ", found.id, " of dataset ",
                           found.dataset, ", which is ", found.state, ". Ask its custodians."));
  }
  Message answer = state_->client.ask({"unwrap", raw(wrapped.key_id), text_of(wrapped.bytes)});
  if (answer.size() != 1 || answer[0].size() != 32) {
    pkcs11::wipe(answer);
    throw KeyError("[pkcs11] Expected a data key of 32 bytes of the token, received another answer.");
  }
  SecretBytes data_key(32);
  const auto bytes = text_bytes(answer[0]);
  std::copy(bytes.begin(), bytes.end(), data_key.bytes().begin());
  pkcs11::wipe(answer);
  return data_key;
}

void Pkcs11::set_state(const KeyInfo& key, const std::string& state) {
  KeyInfo changed = key;
  changed.state = state;
  const bool opens = state == kActive || state == kDeactivated;
  state_->client.ask({"update", raw(key.id), label_of(changed), state == kActive ? "1" : "0", opens ? "1" : "0"});
}

void Pkcs11::create_key(const std::string& dataset, const std::string& tenant) {
  check_dataset_name(dataset);
  check_tenant_name(tenant);
  if (!has_key(dataset)) make_key(dataset, tenant);
}

void Pkcs11::make_key(const std::string& dataset, const std::string& tenant) {
  const KeyInfo key{random_id(), dataset, utc_text(utc_now()), kActive, tenant, ""};
  state_->client.ask({"generate", raw(key.id), label_of(key)});
}

void Pkcs11::rotate_key(const std::string& dataset) {
  const std::vector<KeyInfo> keys = list();
  make_key(dataset, active(dataset).tenant);
  // In this order: stopped in between, the dataset has two active keys of which the newer one seals, and never none.
  for (const KeyInfo& key : keys) {
    if (key.dataset == dataset && key.state == kActive) set_state(key, kDeactivated);
  }
}

void Pkcs11::suspend(const std::string& dataset) {
  active(dataset);
  for (const KeyInfo& key : list()) {
    if (key.dataset == dataset && (key.state == kActive || key.state == kDeactivated)) set_state(key, kSuspended);
  }
}

void Pkcs11::resume(const std::string& dataset) {
  bool newest = true;
  std::vector<KeyInfo> keys = list();
  for (auto key = keys.rbegin(); key != keys.rend(); ++key) {
    if (key->dataset != dataset || key->state != kSuspended) continue;
    set_state(*key, newest ? kActive : kDeactivated);
    newest = false;
  }
  if (newest) throw KeyError(message("[pkcs11] Expected suspended keys of dataset ", dataset, ", received none."));
}

void Pkcs11::revoke(const std::string& dataset) {
  for (const KeyInfo& key : list()) {
    if (key.dataset == dataset) set_state(key, kCompromised);
  }
}

void Pkcs11::destroy(const std::string& dataset) {
  for (const KeyInfo& key : list()) {
    if (key.dataset == dataset) state_->client.ask({"destroy", raw(key.id)});
  }
}

}  // namespace hushgrad
