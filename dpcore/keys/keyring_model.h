// What a keyring holds, without secrets in clear, and its text. Format: docs/formats/keyring.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "dpcore/keys/key_provider.h"
#include "dpcore/keys/signing.h"

namespace hushgrad {

/// Key states of NIST SP 800-57 part 1, as they are stored; pre-active and the end of a cryptoperiod follow from dates.
namespace key_state {
inline constexpr const char* kPreActive = "pre-active";
inline constexpr const char* kActive = "active";
inline constexpr const char* kSuspended = "suspended";
inline constexpr const char* kDeactivated = "deactivated";
inline constexpr const char* kCompromised = "compromised";
inline constexpr const char* kDestroyed = "destroyed";
}  // namespace key_state

struct KeyChange {
  std::string state;
  std::int64_t time = 0;  // seconds since 1970
  std::string actor;      // id of an identity, or empty
  std::string reason;

  bool operator==(const KeyChange&) const = default;
};

struct KeyRecord {
  std::string id;       // 32 hexadecimal digits
  std::string tenant;   // a key without dataset is that of the tenant
  std::string dataset;
  std::string state;    // stored state; state_at() is the one that counts
  std::int64_t activates = 0;
  std::int64_t expires = 0;  // 0: never
  std::uint64_t usage_limit = 0;  // of wraps; 0: none
  std::uint64_t uses = 0;         // counted only under a limit
  int quorum = 0;                 // approvals that undoing, shredding and break-glass need; fixed when the key is made
  bool rotation_due = false;
  std::vector<std::byte> wrapped;  // AES-256-KWP under the tenant's key, or under the root; empty when destroyed
  std::vector<KeyChange> changes;  // the first is the creation

  bool is_tenant() const { return dataset.empty(); }
  std::int64_t created() const { return changes.front().time; }
  std::string state_at(std::int64_t now) const;
};

/// "custodian": changes keys. "approver": approves what a quorum is asked for. Never both.
struct Identity {
  std::string name, role;
  PublicKey key;
  std::int64_t added = 0;
  std::int64_t removed = 0;  // 0: present
};

/// Leave to open files of a key that may otherwise not be used, for a limited time.
struct BreakGlass {
  std::string key_id;
  std::int64_t until = 0;
  std::string actor, reason;
};

/// How the root key is kept.
struct KeyringProtection {
  std::string kdf;   // "argon2id", "scrypt" (older keyrings), "pbkdf2" or empty: no passphrase
  std::uint64_t cost = 0;  // KiB of Argon2id, N of scrypt (r 8, p 1), or rounds
  bool machine = false;
  std::string salt;  // 32 hexadecimal digits
  std::uint64_t passes = 0, lanes = 0;  // of Argon2id

  bool wraps_root() const { return !kdf.empty() || machine; }
};

struct KeyringModel {
  std::string id;                // 32 hexadecimal digits
  std::uint64_t generation = 0;  // goes up with every change
  std::int64_t changed = 0;      // the largest time seen at the last change
  KeyringProtection protection;
  std::string log_key_pem;                // verifies the key log and certificates
  std::vector<std::byte> log_key;         // its PKCS#8, AES-256-KWP under the root
  std::uint64_t log_sequence = 0;         // the last entry of the key log that belongs to this generation
  std::string log_hash;
  std::vector<Identity> identities;
  std::vector<BreakGlass> grants;
  std::vector<KeyRecord> keys;  // in order of creation

  const KeyRecord* find(const std::string& key_id) const;
  KeyRecord* find(const std::string& key_id);
  KeyRecord* tenant_key(const std::string& tenant);
  const KeyRecord* tenant_key(const std::string& tenant) const;
  /// The one active key of a dataset, else one that is suspended, else null.
  KeyRecord* current(const std::string& dataset);
  const KeyRecord* current(const std::string& dataset) const;
  std::vector<PublicKey> present(const std::string& role) const;
  bool may_open(const KeyRecord& key, std::int64_t now) const;
  bool under_break_glass(const std::string& key_id, std::int64_t now) const;
};

/// One line of canonical JSON.
std::string to_text(const KeyringModel& model);
/// KeyError for anything that to_text() does not write or that contradicts itself.
KeyringModel keyring_model_from(const std::string& text);

KeyInfo key_info(const KeyRecord& key, std::int64_t now);

}  // namespace hushgrad
