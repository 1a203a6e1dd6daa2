// The inside of a Keyring; for keyring.cpp and keyring_change.cpp only.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>

#include "dpcore/keys/keyring.h"
#include "dpcore/keys/keyring_file.h"
#include "dpcore/keys/keyring_model.h"
#include "dpcore/keys/state_folder.h"

namespace hushgrad {

struct Keyring::State {
  std::string path;
  std::shared_ptr<const SigningKey> identity;
  mutable std::mutex mutex;  // guards all below
  std::optional<KeyringContents> contents;
  // The key of the protection stays for re-reading; the passphrase does not.
  std::string protection_salt;
  SecretBytes protection_secret{0};

  /// The key for a protection that was seen before; KeyError for another: somebody changed the passphrase.
  SecretBytes protection_key(const KeyringProtection& protection) const;
  ProtectionKey protection() const {
    return [this](const KeyringProtection& p) { return protection_key(p); };
  }
  void keep_protection(const KeyringProtection& protection, SecretBytes key);

  /// Reads the file when it is another than the one that is known; refuses one older than was seen.
  const KeyringContents& fresh();
  /// As install(), of what `read` returns. Other processes may replace the keyring, and remember that, between the reading and the
  /// comparing; so what looks old is read once more, and compared with what was remembered before that reading.
  void install_newest(const std::function<KeyringContents()>& read, bool accept_older = false);
  /// Of a keyring that cannot be replaced meanwhile, since it is locked or is this process's own change.
  void install(KeyringContents read, bool accept_older = false);
  void install_after(const std::optional<SeenKeyring>& seen, KeyringContents read, bool accept_older);
  static std::optional<SeenKeyring> seen_of(const KeyringModel& model);  // by this user
  std::int64_t now() const;  // the largest time seen
  std::string actor() const { return identity ? identity->public_key().id() : std::string(); }
};

/// One change under the lock: what is read, altered, logged, written.
struct Keyring::Change {
  KeyringModel& model;
  const RootKey& root;
  const KeyLog& log;
  std::int64_t now;
  std::string actor;
  std::map<std::string, std::string>& details;  // of the entry in the log
  bool erase = false;                           // overwrite the old file
  bool nothing = false;                         // there was nothing to do: write nothing

  /// Throws Denied unless enough approvers signed exactly this; adds their names to the details. Nothing for quorum 0.
  void authorize(const std::string& action, const std::map<std::string, std::string>& scope, int quorum,
                 const Authorization& authorization);
  /// Keys that are not destroyed. InvalidArgument for a target that names none or several, KeyError when there are none.
  std::vector<KeyRecord*> targets(const KeyTarget& target) const;
  std::map<std::string, std::string> scope(const KeyTarget& target) const;
  int largest_quorum() const;
  void move(KeyRecord& key, const std::string& state, const std::string& reason) const;
};

}  // namespace hushgrad
