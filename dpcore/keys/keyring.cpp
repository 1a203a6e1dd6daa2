#include "dpcore/keys/keyring.h"

#include <algorithm>
#include <utility>

#include <sys/stat.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "dpcore/error.h"
#include "dpcore/keys/durable_file.h"
#include "dpcore/keys/kdf.h"
#include "dpcore/keys/key_wrap.h"
#include "dpcore/keys/keyring_state.h"
#include "dpcore/keys/new_keyring.h"
#include "dpcore/keys/self_test.h"
#include "dpcore/keys/state_folder.h"
#include "dpcore/keys/utc_time.h"

namespace hushgrad {
namespace {

constexpr std::size_t kKeyBytes = 32;
constexpr std::int64_t kTimeGrain = 60;  // seconds between two notes of the time; each is a small write

[[noreturn]] void older(const std::string& path, std::uint64_t newest, std::uint64_t found) {
  throw KeyError(message("[keyring] Expected generation ", newest, " or later of ", path, ", received generation ", found,
                         ": an older copy, in which revoked keys may live on. Use the newest keyring; after a restore "
                         "that is meant, accept it with `hushgrad keys accept-restored`."));
}

bool is_behind(const KeyringModel& model, const std::optional<SeenKeyring>& seen) {
  return seen && (model.generation < seen->generation || (model.generation == seen->generation && model.log_hash != seen->log_hash));
}

SeenKeyring head_of(const KeyringModel& model, std::int64_t now) {
  return {model.generation, now, model.log_sequence, model.log_hash};
}

}  // namespace

Keyring::Keyring(std::unique_ptr<State> state) : state_(std::move(state)) {}
Keyring::Keyring(Keyring&&) noexcept = default;
Keyring& Keyring::operator=(Keyring&&) noexcept = default;
Keyring::~Keyring() = default;

const std::string& Keyring::path() const { return state_->path; }

SecretBytes Keyring::State::protection_key(const KeyringProtection& wanted) const {
  if (wanted.salt != protection_salt) {
    throw KeyError(message("[keyring] Expected the passphrase with which ", path,
                           " was opened, received a keyring under another: it was changed. Open it anew."));
  }
  SecretBytes copy(protection_secret.size());
  std::copy(protection_secret.bytes().begin(), protection_secret.bytes().end(), copy.bytes().begin());
  return copy;
}

void Keyring::State::keep_protection(const KeyringProtection& wanted, SecretBytes key) {
  protection_salt = wanted.salt;
  protection_secret = std::move(key);
}

std::int64_t Keyring::State::now() const {
  if (!contents) return utc_now();
  const KeyringModel& model = contents->model;
  const auto seen = seen_keyring(model.id);
  const std::int64_t largest = std::max({utc_now(), model.changed, seen ? seen->time : 0});
  if (seen && largest >= seen->time + kTimeGrain && model.generation == seen->generation) {
    remember_keyring(model.id, {seen->generation, largest, seen->log_sequence, seen->log_hash});
  }
  return largest;
}

std::optional<SeenKeyring> Keyring::State::seen_of(const KeyringModel& model) {
  // A keyring of version 1 has no name of its own, so nothing is known of it.
  return model.generation > 0 ? seen_keyring(model.id) : std::nullopt;
}

void Keyring::State::install_newest(const std::function<KeyringContents()>& read, bool accept_older) {
  KeyringContents first = read();
  const auto seen = seen_of(first.model);
  if (accept_older || !is_behind(first.model, seen)) return install_after(seen, std::move(first), accept_older);
  KeyringContents second = read();
  if (second.model.id != first.model.id) return install(std::move(second));
  install_after(seen, std::move(second), false);
}

void Keyring::State::install(KeyringContents read, bool accept_older) {
  const auto seen = seen_of(read.model);
  install_after(seen, std::move(read), accept_older);
}

void Keyring::State::install_after(const std::optional<SeenKeyring>& seen, KeyringContents read, bool accept_older) {
  const KeyringModel& model = read.model;
  // Whoever can exchange the file, but has neither passphrase nor root, must not put a keyring of their own in its place. One
  // of version 1 has a name and a root only while it is read.
  const bool named = contents && contents->model.generation > 0;
  if (named && (model.id != contents->model.id || !equal_in_constant_time(read.root.secret(), contents->root.secret()))) {
    throw KeyError(message("[keyring] Expected keyring ", contents->model.id, " at ", path,
                           ", which was opened, received another in its place. Put it back, or open the other one."));
  }
  if (model.generation > 0) {
    const bool known = contents && contents->model.id == model.id && model.generation < contents->model.generation;
    if (!accept_older && (known || is_behind(model, seen))) {
      older(path, std::max(seen ? seen->generation : 0, known ? contents->model.generation : 0), model.generation);
    }
    if (!seen || seen->generation < model.generation) {
      remember_keyring(model.id, head_of(model, std::max({utc_now(), model.changed, seen ? seen->time : 0})));
    }
  }
  contents.emplace(std::move(read));
}

const KeyringContents& Keyring::State::fresh() {
  if (!contents || !(keyring_stamp(path) == contents->stamp)) install_newest([&] { return read_keyring(path, protection()); });
  return *contents;
}

Keyring Keyring::create(const std::string& path, const KeyringAccess& access, bool machine) {
  require_self_tests();
  auto state = std::make_unique<State>();
  state->path = path;
  state->identity = access.identity;
  const RootKey root = RootKey::random();
  KeyringModel model = new_keyring_model(root, new_protection(access.passphrase.has_value(), machine));
  if (model.protection.wraps_root()) {
    state->keep_protection(model.protection, hushgrad::protection_key(model.protection, access.passphrase, true));
  }
  DurableFile file(path, IfExists::refuse);
  const std::string log_path = path + ".log";
  struct stat status;
  if (::lstat(log_path.c_str(), &status) == 0) {
    throw IoError(message("[keyring] Expected nothing at ", log_path,
                          ", where the key log of the new keyring goes, received something that exists: the log of a keyring "
                          "that is gone, or of one whose making was stopped. Choose another name, or move it away."));
  }
  KeyLog log = KeyLog::read(log_path, PublicKey::from_pem(model.log_key_pem));
  try {
    log.append({0, "", utc_text(model.changed), model.id, model.generation, state->actor(), "init", {}},
               open_log_key(model, root));
    model.log_sequence = log.sequence();
    model.log_hash = log.hash_at(log.sequence());
    file.write_at(0, keyring_text(model, root, state->protection()).bytes());
    file.publish();
  } catch (...) {
    if (!file.named()) ::unlink(log_path.c_str());  // of a keyring that never was
    throw;
  }
  state->install_newest([&] { return read_keyring(path, state->protection()); });
  return Keyring(std::move(state));
}

Keyring Keyring::open(const std::string& path, const KeyringAccess& access) { return open(path, access, false); }

Keyring Keyring::open(const std::string& path, const KeyringAccess& access, bool accept_older) {
  require_self_tests();
  auto state = std::make_unique<State>();
  state->path = path;
  state->identity = access.identity;
  bool asked = false;
  const ProtectionKey protection_key = [&](const KeyringProtection& protection) {
    asked = true;
    state->keep_protection(protection, hushgrad::protection_key(protection, access.passphrase, false));
    return state->protection_key(protection);
  };
  state->install_newest([&] { return read_keyring(path, protection_key); }, accept_older);
  if (!asked && access.passphrase) {
    throw KeyError("[keyring] Expected no passphrase for this keyring, received one. Open it without.");
  }
  return Keyring(std::move(state));
}

WrappedKey Keyring::wrap(const std::string& dataset, std::span<const std::byte> data_key) const {
  if (data_key.size() != kKeyBytes) {
    throw InvalidArgument(message("[keyring] Expected a data key of 32 bytes, received ", data_key.size(), "."));
  }
  const std::lock_guard lock(state_->mutex);
  state_->fresh();
  if (sealing_key(dataset).usage_limit > 0) count_use(dataset);
  const KeyRecord& key = sealing_key(dataset);
  const KeyringContents& contents = *state_->contents;
  return {key.id, aes256_kwp_wrap(open_key(contents.model, contents.root, key).bytes(), data_key),
          contents.model.generation};
}

// Of the keyring as it was last read.
const KeyRecord& Keyring::sealing_key(const std::string& dataset) const {
  const KeyRecord* key = state_->contents->model.current(dataset);
  const std::string found = key == nullptr ? "none" : key->state_at(state_->now());
  if (found != key_state::kActive) {
    throw KeyError(message("[keyring] Expected an active key of dataset ", dataset, " in ", path(), ", received ",
                           key == nullptr ? "" : "one that is ", found,
                           ". See `hushgrad keys list`; create or rotate one."));
  }
  if (key->rotation_due) {
    throw KeyError(message("[keyring] Expected a key of dataset ", dataset,
                           " that nobody opened by breaking glass, received one whose rotation is due. Run `hushgrad keys "
                           "rotate`."));
  }
  return *key;
}

SecretBytes Keyring::unwrap(const WrappedKey& wrapped) const {
  const std::lock_guard lock(state_->mutex);
  state_->fresh();
  const std::string state = opening_key(wrapped).state;
  if (state != key_state::kActive && state != key_state::kDeactivated) log_use(wrapped);
  const KeyRecord& key = opening_key(wrapped);
  const SecretBytes secret = open_key(state_->contents->model, state_->contents->root, key);
  std::optional<SecretBytes> data_key = aes256_kwp_unwrap(secret.bytes(), wrapped.bytes);
  if (!data_key || data_key->size() != kKeyBytes) {
    throw SealError(
        "[keyring] Expected a data key wrapped under the named key, received one that was altered or wrapped "
        "under another. Use an intact copy of the file.");
  }
  return std::move(*data_key);
}

// Of the keyring as it was last read.
const KeyRecord& Keyring::opening_key(const WrappedKey& wrapped) const {
  const KeyringContents& contents = *state_->contents;
  const KeyRecord* key = contents.model.find(wrapped.key_id);
  if (key == nullptr || key->is_tenant()) {
    throw KeyError(message("[keyring] Expected key ", wrapped.key_id, " in ", path(),
                           ", received none of that id. Use the keyring that holds the key of this dataset."));
  }
  if (wrapped.generation > contents.model.generation) older(path(), wrapped.generation, contents.model.generation);
  const std::int64_t now = state_->now();
  if (key->state == key_state::kDestroyed) open_key(contents.model, contents.root, *key);  // says what that means
  if (!contents.model.may_open(*key, now)) {
    throw KeyError(message("[keyring] Expected a key that may open files, received ", key->id, " of dataset ",
                           key->dataset, ", which is ", key->state_at(now),
                           ". Ask its custodians; in an emergency, `hushgrad keys break-glass`."));
  }
  return *key;
}

KeyInfo Keyring::key(const std::string& key_id) const {
  const std::lock_guard lock(state_->mutex);
  const KeyRecord* key = state_->fresh().model.find(key_id);
  if (key != nullptr && !key->is_tenant()) return key_info(*key, state_->now());
  throw KeyError(message("[keyring] Expected key ", key_id, " in ", path(),
                         ", received none of that id. Use the keyring that holds the key of this dataset."));
}

std::vector<KeyInfo> Keyring::list() const {
  const std::lock_guard lock(state_->mutex);
  std::vector<KeyInfo> infos;
  for (const KeyRecord& key : state_->fresh().model.keys) {
    if (!key.is_tenant()) infos.push_back(key_info(key, state_->now()));
  }
  return infos;
}

std::uint64_t Keyring::generation() const {
  const std::lock_guard lock(state_->mutex);
  return state_->fresh().model.generation;
}

PublicKey Keyring::public_key() const {
  const std::lock_guard lock(state_->mutex);
  return PublicKey::from_pem(state_->fresh().model.log_key_pem);
}

KeyLog Keyring::verify() const {
  const std::lock_guard lock(state_->mutex);
  const KeyringModel& model = state_->fresh().model;
  KeyLog log = KeyLog::read(log_path(), PublicKey::from_pem(model.log_key_pem));
  log.check_holds(model.log_sequence, model.log_hash);
  if (const auto seen = seen_keyring(model.id)) log.check_holds(seen->log_sequence, seen->log_hash);
  for (const KeyRecord& key : model.keys) {
    if (key.state != key_state::kDestroyed && !key.is_tenant()) open_key(model, state_->contents->root, key);
  }
  return log;
}

Operation Keyring::request(const std::string& action, const std::map<std::string, std::string>& scope,
                           const std::string& reason, std::int64_t lifetime) const {
  if (!state_->identity) {
    throw InvalidState("[keyring] Expected an identity that asks, received none. Open the keyring with one.");
  }
  const std::lock_guard lock(state_->mutex);
  auto full = scope;
  full["keyring"] = state_->fresh().model.id;
  return make_operation(action, full, reason, state_->actor(), lifetime);
}

std::string Keyring::describe() const {
  const std::lock_guard lock(state_->mutex);
  const KeyringModel& model = state_->fresh().model;
  auto text = nlohmann::json::parse(to_text(model));
  text["log"].erase("key");
  text["name"] = name();
  for (std::size_t i = 0; i < model.keys.size(); ++i) {
    text["keys"][i].erase("wrapped");
    text["keys"][i]["state"] = model.keys[i].state_at(state_->now());
  }
  for (std::size_t i = 0; i < model.identities.size(); ++i) text["identities"][i]["id"] = model.identities[i].key.id();
  return text.dump();
}

}  // namespace hushgrad
