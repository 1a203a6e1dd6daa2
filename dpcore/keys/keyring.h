// A local keyring: one file, mode 0600, that holds one key-encryption key a dataset. Format:
// docs/formats/keyring.md.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "dpcore/keys/key_provider.h"
#include "dpcore/keys/names.h"
#include "dpcore/keys/secret_bytes.h"

namespace hushgrad {

/// Guarantees:
///  - The file is created with mode 0600, replaced atomically and durably (temp file, fsync, rename, fsync of
///    the folder); after a crash it is the old or the new keyring, and two processes that add keys lose none.
///  - A file that is a symlink, not regular, owned by somebody else, or open to group or others is refused.
///  - A keyring that was altered or cut by accident is refused (SHA-384 over its text). It is no defence
///    against somebody who may write the file: who holds the keyring holds the data.
///  - Key material lives in SecretBytes and is never part of a message or of KeyInfo.
/// Errors: KeyError (missing or refused file, malformed content, unknown dataset or key), InvalidArgument
/// (dataset name), IoError (operating system). Safe for concurrent use.
class Keyring final : public KeyProvider {
 public:
  /// Makes an empty keyring. IoError when something, even a dangling symlink, already stands at `path`.
  static Keyring create(const std::string& path);
  static Keyring open(const std::string& path);

  Keyring(Keyring&&) noexcept = default;
  Keyring& operator=(Keyring&&) noexcept = default;

  const std::string& path() const { return path_; }

  /// Adds a random 256-bit key for `dataset`; does nothing when the dataset has an active key.
  void create_key(const std::string& dataset);
  /// Retires the active key of `dataset` and adds a new one. Files sealed earlier still open. KeyError when
  /// the dataset has no key.
  void rotate_key(const std::string& dataset);
  std::string name() const override { return "keyring " + path_; }
  std::vector<KeyInfo> list() const override;
  KeyInfo key(const std::string& key_id) const override;
  std::uint64_t generation() const override { return 0; }

  /// Wraps a 32-byte data key under the active key of `dataset` (AES-256-KWP, NIST SP 800-38F section 6.3).
  /// KeyError when the dataset has no active key, InvalidArgument when data_key is not 32 bytes.
  WrappedKey wrap(const std::string& dataset, std::span<const std::byte> data_key) const override;
  /// The data key. KeyError when this keyring holds no key of that id (no other key is tried), SealError when
  /// the wrapped bytes are not intact under it.
  SecretBytes unwrap(const WrappedKey& wrapped) const override;

 private:
  struct Key {
    KeyInfo info;
    SecretBytes secret;
  };
  Keyring(std::string path, std::vector<Key> keys);

  static std::vector<Key> parse(std::span<const std::byte> text);
  static SecretBytes serialize(const std::vector<Key>& keys);
  static std::vector<Key> read(int descriptor, const std::string& path);
  const Key* active(const std::string& dataset) const;
  const Key& find(const std::string& key_id) const;
  void update(const std::string& dataset, bool retire_active);

  std::string path_;
  std::unique_ptr<std::mutex> mutex_;  // guards keys_; on the heap, so that a keyring can be moved
  std::vector<Key> keys_;
};

}  // namespace hushgrad
