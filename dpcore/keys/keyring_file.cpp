#include "dpcore/keys/keyring_file.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dpcore/error.h"
#include "dpcore/keys/bytes.h"
#include "dpcore/keys/kdf.h"
#include "dpcore/keys/key_wrap.h"
#include "dpcore/keys/keyring_version_1.h"
#include "dpcore/keys/private_file.h"

namespace hushgrad {
namespace {

constexpr std::size_t kKeyBytes = 32, kWrappedBytes = 40;
constexpr std::size_t kMaxFileBytes = 16 * 1024 * 1024;
constexpr std::string_view kFirstLine = "hushgrad keyring 2\n";
constexpr std::string_view kRootLabel = "root ";
constexpr std::string_view kMacLabel = "hmac-sha384 ";
constexpr int kTries = 8;  // a writer may replace the file, and a shred overwrite the old one, between open and read

[[noreturn]] void malformed(const char* what) {
  throw KeyError(message("[keyring] Expected ", what, ", received something else. Restore the keyring from a backup."));
}

FileStamp stamp_of(const struct stat& status) {
  const auto nanoseconds = [](const struct timespec& time) { return time.tv_sec * 1'000'000'000 + time.tv_nsec; };
  return {status.st_dev, status.st_ino, static_cast<std::uint64_t>(status.st_size), nanoseconds(status.st_mtim),
          nanoseconds(status.st_ctim)};
}

// Cuts `label`, then everything to the end of the line.
std::string_view take_line(std::string_view& text, std::string_view label) {
  const auto end = text.find('\n');
  if (!text.starts_with(label) || end == text.npos) malformed("the lines of version 2");
  const std::string_view line = text.substr(label.size(), end - label.size());
  text.remove_prefix(end + 1);
  return line;
}

SecretBytes open_root(const KeyringProtection& protection, std::string_view digits, const ProtectionKey& protection_key) {
  const std::size_t size = protection.wraps_root() ? kWrappedBytes : kKeyBytes;
  if (!is_hex(digits, size)) malformed("a root key of the right length");
  SecretBytes stored(size);
  from_hex(digits, stored.bytes());
  if (!protection.wraps_root()) return stored;
  auto root = aes256_kwp_unwrap(protection_key(protection).bytes(), stored.bytes());
  if (!root || root->size() != kKeyBytes) {
    throw KeyError(
        "[keyring] Expected the passphrase (and the machine) of this keyring, received another, or the file was altered. "
        "Try again, or restore the keyring from a backup.");
  }
  return std::move(*root);
}

KeyringContents parse(std::span<const std::byte> bytes, const FileStamp& stamp, const ProtectionKey& protection_key) {
  const std::string_view all(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (is_version_1(all)) {
    auto [model, root] = parse_version_1(all);
    return {std::move(model), std::move(root), stamp};
  }
  if (!all.starts_with(kFirstLine)) malformed("a keyring of version 1 or 2");
  std::string_view rest = all.substr(kFirstLine.size());
  const std::string body(take_line(rest, ""));
  const std::string_view root_digits = take_line(rest, kRootLabel);
  const std::size_t covered = all.size() - rest.size();
  const std::string_view mac = take_line(rest, kMacLabel);
  if (!rest.empty() || !is_hex(mac, sizeof(Sha384))) malformed("an end after the third line");
  KeyringModel model = keyring_model_from(body);
  RootKey root(open_root(model.protection, root_digits, protection_key));
  Sha384 stored;
  from_hex(mac, stored);
  if (!equal_in_constant_time(root.mac(bytes.first(covered)), stored)) malformed("a keyring that nobody altered");
  return {std::move(model), std::move(root), stamp};
}

Descriptor open_keyring(const std::string& path) { return open_private_file(path, "keyring", kMaxFileBytes); }

KeyringContents read_open(int descriptor, const std::string& path, const ProtectionKey& protection_key) {
  struct stat status;
  if (::fstat(descriptor, &status) != 0) throw IoError(message("[keyring] Cannot examine ", path, "."));
  return parse(read_secret(descriptor, path).bytes(), stamp_of(status), protection_key);
}

bool stands_at(int descriptor, const std::string& path) {
  struct stat mine, current;
  return ::fstat(descriptor, &mine) == 0 && ::stat(path.c_str(), &current) == 0 && mine.st_ino == current.st_ino &&
         mine.st_dev == current.st_dev;
}

// A writer replaces the file, so a lock may be won on an old one.
Descriptor open_locked(const std::string& path) {
  for (;;) {
    Descriptor file = open_keyring(path);
    while (::flock(file.get(), LOCK_EX) != 0) {
      if (errno != EINTR) throw IoError(message("[keyring] Cannot lock ", path, ": ", std::strerror(errno), "."));
    }
    if (stands_at(file.get(), path)) return file;
  }
}

void overwrite(int descriptor, const std::string& path) {
  struct stat status;
  if (::fstat(descriptor, &status) != 0) throw IoError(message("[keyring] Cannot examine the old file of ", path, "."));
  const std::vector<std::byte> zeros(static_cast<std::size_t>(status.st_size));
  if (write_at(descriptor, 0, zeros) && ::fsync(descriptor) == 0) return;
  throw IoError(message("[keyring] Expected to overwrite the old file of ", path, ", received: ", std::strerror(errno),
                        ". The new keyring stands; the old bytes may still be on the medium."));
}

}  // namespace

FileStamp keyring_stamp(const std::string& path) {
  struct stat status;
  if (::lstat(path.c_str(), &status) == 0) return stamp_of(status);
  throw KeyError(message("[keyring] Expected a keyring at ", path, ", received: ", std::strerror(errno),
                         ". Give its path, or create one with `hushgrad keys init`."));
}

KeyringContents read_keyring(const std::string& path, const ProtectionKey& protection_key) {
  for (int i = 0;; ++i) {
    const Descriptor file = open_keyring(path);
    try {
      return read_open(file.get(), path, protection_key);
    } catch (const KeyError&) {
      if (i == kTries || stands_at(file.get(), path)) throw;
    }
  }
}

LockedKeyring lock_keyring(const std::string& path, const ProtectionKey& protection_key) {
  Descriptor lock = open_locked(path);
  KeyringContents contents = read_open(lock.get(), path, protection_key);
  return {std::move(lock), std::move(contents)};
}

SecretBytes keyring_text(const KeyringModel& model, const RootKey& root, const ProtectionKey& protection_key) {
  const std::string body = to_text(model);
  std::vector<std::byte> wrapped;
  std::span<const std::byte> stored = root.secret();
  if (model.protection.wraps_root()) {
    wrapped = aes256_kwp_wrap(protection_key(model.protection).bytes(), root.secret());
    stored = wrapped;
  }
  // Written in place, so that no copy of the root is left behind by a growing string.
  SecretBytes text(kFirstLine.size() + body.size() + 1 + kRootLabel.size() + 2 * stored.size() + 1 + kMacLabel.size() +
                   2 * sizeof(Sha384) + 1);
  auto* out = reinterpret_cast<char*>(text.bytes().data());
  std::size_t size = 0;
  const auto put = [&](std::string_view part) {
    std::memcpy(out + size, part.data(), part.size());
    size += part.size();
  };
  const auto put_hex = [&](std::span<const std::byte> bytes) {
    for (std::byte byte : bytes) {
      out[size++] = hex_digit(std::to_integer<unsigned>(byte) >> 4);
      out[size++] = hex_digit(std::to_integer<unsigned>(byte) & 15);
    }
    put("\n");
  };
  put(kFirstLine);
  put(body);
  put("\n");
  put(kRootLabel);
  put_hex(stored);
  const auto mac = root.mac(text.bytes().first(size));
  put(kMacLabel);
  put_hex(mac);
  if (text.size() > kMaxFileBytes) {
    throw InvalidState("[keyring] Expected at most 16 MiB of keys, received more. Start a second keyring.");
  }
  return text;
}

void replace_keyring(const std::string& path, std::span<const std::byte> text, bool erase) {
  const Descriptor old(erase ? ::open(path.c_str(), O_WRONLY | O_NOFOLLOW | O_CLOEXEC) : -1);
  DurableFile file(path, IfExists::replace);
  file.write_at(0, text);
  file.publish();
  if (old.get() >= 0) overwrite(old.get(), path);
}

}  // namespace hushgrad
