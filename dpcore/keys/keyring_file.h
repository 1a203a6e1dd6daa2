// The keyring's file: reading it with its root key, replacing it durably, and noticing that it changed.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <string>

#include <sys/types.h>

#include "dpcore/keys/durable_file.h"
#include "dpcore/keys/keyring_model.h"
#include "dpcore/keys/root_key.h"

namespace hushgrad {

/// Tells one state of a file from another without reading it: every change of a keyring is a new file.
struct FileStamp {
  std::uint64_t device = 0, inode = 0, size = 0;
  std::int64_t modified = 0, changed = 0;  // nanoseconds

  bool operator==(const FileStamp&) const = default;
};
/// KeyError when there is no file.
FileStamp keyring_stamp(const std::string& path);

struct KeyringContents {
  KeyringModel model;
  RootKey root;
  FileStamp stamp;
};

/// The key that wraps the root under the protection that is found; asked only where there is one.
using ProtectionKey = std::function<SecretBytes(const KeyringProtection&)>;

/// Reads and authenticates. A file of version 1 comes with a fresh root and generation 0; it becomes version 2 when it is
/// written. KeyError when missing, open to others, malformed, altered, or not opened by `protection_key`; IoError.
KeyringContents read_keyring(const std::string& path, const ProtectionKey& protection_key);

/// The same, with the file locked against other writers until the descriptor goes.
struct LockedKeyring {
  Descriptor lock;
  KeyringContents contents;
};
LockedKeyring lock_keyring(const std::string& path, const ProtectionKey& protection_key);

/// The text of the file, root included.
SecretBytes keyring_text(const KeyringModel& model, const RootKey& root, const ProtectionKey& protection_key);

/// Replaces the file. With `erase` the bytes of the old one are overwritten after the new one stands: other names of the
/// same file lose them too, copies do not. IoError.
void replace_keyring(const std::string& path, std::span<const std::byte> text, bool erase);

}  // namespace hushgrad
