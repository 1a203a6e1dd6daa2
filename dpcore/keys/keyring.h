// A local keyring: one file, mode 0600, with a hierarchy of keys: root -> tenant -> dataset -> (in sealed files) file.
// Format: docs/formats/keyring.md. For people: docs/keys.md.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "dpcore/keys/approval.h"
#include "dpcore/keys/key_log.h"
#include "dpcore/keys/key_provider.h"
#include "dpcore/keys/names.h"
#include "dpcore/keys/signing.h"

namespace hushgrad {

struct KeyringModel;
struct KeyRecord;

/// Who opens a keyring, and how.
struct KeyringAccess {
  std::optional<std::span<const std::byte>> passphrase = {};  // read while opening, not kept
  std::shared_ptr<const SigningKey> identity = {};            // in whose name changes are made; none where nobody is registered
};

struct KeyOptions {
  std::string tenant = "default";
  std::int64_t activates = 0;     // seconds since 1970; until then the key is pre-active. 0: at once
  std::int64_t expires = 0;       // from then on it wraps nothing new. 0: never
  std::uint64_t usage_limit = 0;  // of wraps, counted durably before each. 0: none
  int quorum = 0;  // approvals that resume, reinstate, shred and break_glass need. Fixed for the life of the key
};

/// Which keys an operation is about; exactly one field is set. Destroyed keys are not touched again.
struct KeyTarget {
  std::string dataset = {}, tenant = {}, key_id = {};
};

/// An operation that was asked for, and who approved it. Needed where a quorum is set.
struct Authorization {
  std::optional<Operation> operation = {};
  std::vector<Approval> approvals = {};
};

/// Guarantees, beside those of KeyProvider:
///  - The file has mode 0600, and is replaced atomically and durably (temp file, fsync, rename, fsync of the folder):
///    after a crash it is the old or the new keyring, and processes that change keys at once lose none.
///  - A file that is a symlink, not regular, of somebody else, or open to group or others is refused; so is one that was
///    altered or cut (HMAC-SHA-384 under the root key). With a passphrase nobody without it can make one that opens.
///  - Every change has its signed entry in the key log `<path>.log` on disk before it is made; without log no change.
///  - Each change raises the generation. A keyring older than this user has seen, or than the file that is opened, is
///    refused: a restored copy does not bring a revoked key back.
///  - A change by another process is seen by the next call of any method: revocation takes effect at the next use of a
///    key (the file is examined at each), not after a time.
///  - Expiry follows the largest time ever seen, not a clock that was set back.
///  - Key material lives in SecretBytes and is never part of a message, of KeyInfo or of the log.
/// Errors: KeyError (missing or refused file, malformed content, unknown, unusable or expired key), Denied (approvals,
/// identity; each denial is logged), InvalidArgument (names, options), IoError (operating system; nothing changed). Safe
/// for concurrent use.
class Keyring final : public KeyProvider {
 public:
  /// Makes an empty keyring and its log. IoError when something, even a dangling symlink, already stands at either path.
  /// `machine` binds it to this user on this machine (machine_secret()): a copy opens nowhere else.
  static Keyring create(const std::string& path, const KeyringAccess& access = {}, bool machine = false);
  static Keyring open(const std::string& path, const KeyringAccess& access = {});

  Keyring(Keyring&&) noexcept;
  Keyring& operator=(Keyring&&) noexcept;
  ~Keyring() override;

  const std::string& path() const;
  std::string log_path() const { return path() + ".log"; }

  std::string name() const override { return "keyring " + path(); }
  WrappedKey wrap(const std::string& dataset, std::span<const std::byte> data_key) const override;
  SecretBytes unwrap(const WrappedKey& wrapped) const override;
  KeyInfo key(const std::string& key_id) const override;
  std::vector<KeyInfo> list() const override;
  std::uint64_t generation() const override;

  /// Adds a random 256-bit key for `dataset`; does nothing when the dataset has an active or pre-active key. KeyError
  /// when its key is suspended: resume or rotate it. InvalidArgument when the dataset belongs to another tenant, for dates
  /// out of order, or a quorum larger than the number of approvers.
  void create_key(const std::string& dataset, const KeyOptions& options = {});
  /// Deactivates the active key of `dataset` (it still opens) and adds a new one of the same tenant, quorum, limit and
  /// length of life. KeyError when there is no active key to rotate, unless all were revoked or expired.
  void rotate_key(const std::string& dataset, const std::string& reason = "");
  /// Neither seals nor opens until resume().
  void suspend(const KeyTarget& target, const std::string& reason);
  void resume(const KeyTarget& target, const std::string& reason, const Authorization& authorization = {});
  /// Compromised: neither seals nor opens again. Needs no approval, for it must be quick.
  void revoke(const KeyTarget& target, const std::string& reason);
  /// Undoes a revocation: the keys open again, and seal nothing new.
  void reinstate(const KeyTarget& target, const std::string& reason, const Authorization& authorization = {});
  /// Destroys keys for good and returns the signed certificate of destruction (certificate.h). The old file is
  /// overwritten. `files` are what the caller knows was sealed under them; they go into the log and the certificate as
  /// they are.
  std::string shred(const KeyTarget& target, const std::string& reason, const std::vector<std::string>& files,
                    const Authorization& authorization = {});
  /// The certificate of the last shred() of this target, signed anew: where the process was stopped before it could keep
  /// what shred() returned. KeyError when nothing was destroyed under that name.
  std::string certificate(const KeyTarget& target) const;
  /// Lets suspended or compromised keys open files for `minutes` (1..60). In the log, on disk, before it opens anything,
  /// and so is each use. Afterwards the key seals nothing until it is rotated.
  void break_glass(const KeyTarget& target, const std::string& reason, int minutes,
                   const Authorization& authorization = {});

  /// Registers a person. Role "custodian" changes keys: as soon as there is one, nobody else does, and one stays.
  /// "approver" approves. Nobody is both. Where a key has a quorum, changes of people need the largest quorum of all keys.
  void add_identity(const std::string& name, const std::string& role, const PublicKey& key,
                    const Authorization& authorization = {});
  void remove_identity(const std::string& identity, const std::string& reason, const Authorization& authorization = {});
  /// Wraps the root key anew: under another passphrase, or none. Old copies keep the old one.
  void protect(const KeyringAccess& access, bool machine);

  /// Asks for an operation on exactly these keys, in the name of the identity. `extra` holds what the operation adds to
  /// the scope: {"minutes": "30"} for break-glass. Actions: resume, reinstate, shred, break-glass, add-identity,
  /// remove-identity. InvalidState without an identity.
  Operation request(const std::string& action, const std::map<std::string, std::string>& scope, const std::string& reason,
                    std::int64_t lifetime) const;

  /// Reads the whole log and the state again; what stands in it, verified. KeyError when anything does not fit.
  KeyLog verify() const;
  /// Takes the keyring at `path` as it is although this user has seen a newer one: after a restore from a backup that is
  /// meant. Logged; needs the largest quorum of all keys (action "accept-restored"). Its generation goes above all seen.
  static void accept_restored(const std::string& path, const KeyringAccess& access, const std::string& reason,
                              const Authorization& authorization);

  /// Everything that may be shown, as JSON: keys with their changes, identities, protection, the head of the log.
  std::string describe() const;
  /// Verifies the key log and certificates.
  PublicKey public_key() const;

 private:
  struct State;
  struct Change;
  explicit Keyring(std::unique_ptr<State> state);
  static Keyring open(const std::string& path, const KeyringAccess& access, bool accept_older);
  using Details = std::map<std::string, std::string>;
  void change(const std::string& action, Details details, const std::function<void(Change&)>& work,
              bool accept_older = false);
  void move(const std::string& action, const KeyTarget& target, const std::string& reason,
            const Authorization* authorization, const std::string& from, const std::string& to);
  void publish(KeyringModel model, KeyLog& log, KeyLogEntry entry, std::int64_t now, bool erase) const;
  const KeyRecord& sealing_key(const std::string& dataset) const;
  const KeyRecord& opening_key(const WrappedKey& wrapped) const;
  void count_use(const std::string& dataset) const;
  void log_use(const WrappedKey& wrapped) const;

  std::unique_ptr<State> state_;
};

}  // namespace hushgrad
