#include "dpcore/keys/keyring.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <optional>
#include <set>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dpcore/error.h"
#include "dpcore/keys/bytes.h"
#include "dpcore/keys/durable_file.h"
#include "dpcore/keys/kdf.h"
#include "dpcore/keys/key_wrap.h"
#include "dpcore/keys/names.h"

namespace hushgrad {
namespace {

constexpr std::size_t kKeyBytes = 32;
constexpr std::size_t kIdBytes = 16;
constexpr std::size_t kMaxFileBytes = 1024 * 1024;
constexpr std::string_view kFirstLine = "hushgrad keyring 1\n";
constexpr std::string_view kDigestLabel = "sha384 ";
constexpr std::string_view kActive = "active";
constexpr std::string_view kRetired = "retired";

// "2026-01-31T12:00:00Z"
bool is_time(std::string_view text) {
  constexpr std::string_view pattern = "dddd-dd-ddTdd:dd:ddZ";
  return std::equal(text.begin(), text.end(), pattern.begin(), pattern.end(),
                    [](char c, char p) { return p == 'd' ? c >= '0' && c <= '9' : c == p; });
}

std::string now() {
  const std::time_t seconds = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

[[noreturn]] void malformed(const char* what) {
  throw KeyError(
      message("[keyring] Expected ", what, ", received something else. Restore the keyring from a backup."));
}

// Cuts the next token that ends in `end` off `text`; the end itself is dropped.
std::string_view take(std::string_view& text, char end) {
  const auto length = text.find(end);
  if (length == text.npos) malformed("complete lines of five fields");
  const std::string_view token = text.substr(0, length);
  text.remove_prefix(length + 1);
  return token;
}

// Writes into memory that is wiped, where a std::string would leave copies behind as it grows.
class SecretText {
 public:
  explicit SecretText(std::size_t capacity) : text_(capacity) {}
  void append(std::string_view part) {
    std::memcpy(text_.bytes().data() + size_, part.data(), part.size());
    size_ += part.size();
  }
  void append_hex(std::span<const std::byte> bytes) {
    for (std::byte byte : bytes) {
      const char digits[] = {hex_digit(std::to_integer<unsigned>(byte) >> 4),
                             hex_digit(std::to_integer<unsigned>(byte) & 15)};
      append({digits, 2});
    }
  }
  std::span<const std::byte> written() const { return text_.bytes().first(size_); }
  SecretBytes finish() && {
    SecretBytes exact(size_);
    std::copy_n(text_.bytes().begin(), size_, exact.bytes().begin());
    return exact;
  }

 private:
  SecretBytes text_;
  std::size_t size_ = 0;
};

// Opens without following a link at the end of the path, and refuses what somebody else could have read or
// written.
Descriptor open_private(const std::string& path) {
  if (path.find('\0') != path.npos) {
    throw InvalidArgument("[keyring] Expected a path without NUL, received one with it.");
  }
  Descriptor file(::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) {
    throw KeyError(message(
        "[keyring] Expected a readable keyring at ", path, ", received: ", std::strerror(errno),
        ". Give the path of the file itself, not of a link, or create one with `hushgrad keys init`."));
  }
  struct stat status;
  if (::fstat(file.get(), &status) != 0) throw IoError(message("[keyring] Cannot examine ", path, "."));
  if (!S_ISREG(status.st_mode) || status.st_uid != ::geteuid() || (status.st_mode & 077) != 0) {
    throw KeyError(
        message("[keyring] Expected ", path,
                " to be a regular file of the current user with mode 0600, received another owner, kind or "
                "wider permissions. If nobody else has read it, run chmod 600; otherwise rotate its keys."));
  }
  if (status.st_size > static_cast<off_t>(kMaxFileBytes)) malformed("a keyring of at most 1 MiB");
  return file;
}

// Opens and locks the file that stands at `path` now: a writer replaces the file, so a lock may be won on an
// old one.
Descriptor open_locked(const std::string& path) {
  for (;;) {
    Descriptor file = open_private(path);
    while (::flock(file.get(), LOCK_EX) != 0) {
      if (errno != EINTR) {
        throw IoError(message("[keyring] Cannot lock ", path, ": ", std::strerror(errno), "."));
      }
    }
    struct stat mine, current;
    if (::fstat(file.get(), &mine) == 0 && ::stat(path.c_str(), &current) == 0 &&
        mine.st_ino == current.st_ino && mine.st_dev == current.st_dev) {
      return file;
    }
  }
}

void write_keyring(const std::string& path, std::span<const std::byte> text, IfExists if_exists) {
  DurableFile file(path, if_exists);
  file.write_at(0, text);
  file.publish();
}

}  // namespace

Keyring::Keyring(std::string path, std::vector<Key> keys)
    : path_(std::move(path)), mutex_(std::make_unique<std::mutex>()), keys_(std::move(keys)) {}

Keyring Keyring::create(const std::string& path) {
  Keyring keyring(path, {});
  write_keyring(path, serialize(keyring.keys_).bytes(), IfExists::refuse);
  return keyring;
}

Keyring Keyring::open(const std::string& path) { return Keyring(path, read(open_private(path).get(), path)); }

std::vector<Keyring::Key> Keyring::read(int descriptor, const std::string& path) {
  struct stat status;
  if (::fstat(descriptor, &status) != 0) throw IoError(message("[keyring] Cannot examine ", path, "."));
  SecretBytes text(static_cast<std::size_t>(status.st_size));
  if (!read_at(descriptor, 0, text.bytes(), path)) malformed("a file that keeps its length");
  return parse(text.bytes());
}

std::vector<Keyring::Key> Keyring::parse(std::span<const std::byte> bytes) {
  const std::size_t tail_size = kDigestLabel.size() + 2 * sizeof(Sha384) + 1;
  if (bytes.size() < kFirstLine.size() + tail_size) malformed("a whole keyring");
  const auto body = bytes.first(bytes.size() - tail_size);
  const std::string_view all(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  const std::string expected_tail = std::string(kDigestLabel) + to_hex(sha384(body)) + "\n";
  if (!all.starts_with(kFirstLine)) malformed("a keyring of version 1");
  if (all.substr(body.size()) != expected_tail) malformed("a keyring whose SHA-384 fits its text");

  std::vector<Key> keys;
  std::set<std::string> ids, active_datasets;
  std::string_view rest = all.substr(kFirstLine.size(), body.size() - kFirstLine.size());
  while (!rest.empty()) {
    const std::string_view id = take(rest, ' ');
    const std::string_view created = take(rest, ' ');
    const std::string_view state = take(rest, ' ');
    const std::string_view digits = take(rest, ' ');
    const std::string_view dataset = take(rest, '\n');
    if (!is_hex(id, kIdBytes) || !is_plain_name(dataset) || !is_time(created) ||
        !is_hex(digits, kKeyBytes) || (state != kActive && state != kRetired)) {
      malformed("an id, time, state, key and dataset in each line");
    }
    if (!ids.emplace(id).second) malformed("each key id once");
    if (state == kActive && !active_datasets.emplace(dataset).second) malformed("one active key a dataset");
    SecretBytes secret(kKeyBytes);
    from_hex(digits, secret.bytes());
    keys.push_back({{std::string(id), std::string(dataset), std::string(created), std::string(state), "default", ""},
                    std::move(secret)});
  }
  return keys;
}

SecretBytes Keyring::serialize(const std::vector<Key>& keys) {
  SecretText text(kFirstLine.size() + keys.size() * 512 + 256);
  text.append(kFirstLine);
  for (const Key& key : keys) {
    for (const std::string* field : {&key.info.id, &key.info.created, &key.info.state}) {
      text.append(*field);
      text.append(" ");
    }
    text.append_hex(key.secret.bytes());
    text.append(" ");
    text.append(key.info.dataset);
    text.append("\n");
  }
  const Sha384 digest = sha384(text.written());
  text.append(kDigestLabel);
  text.append_hex(digest);
  text.append("\n");
  if (text.written().size() > kMaxFileBytes) {
    throw InvalidState("[keyring] Expected at most 1 MiB of keys, received more. Start a second keyring.");
  }
  return std::move(text).finish();
}

void Keyring::create_key(const std::string& dataset) { update(dataset, false); }

void Keyring::rotate_key(const std::string& dataset) { update(dataset, true); }

void Keyring::update(const std::string& dataset, bool retire_active) {
  check_dataset_name(dataset);
  const Descriptor locked_file = open_locked(path_);
  Keyring current(path_, read(locked_file.get(),
                              path_));  // another process may have added keys since this one was opened
  const auto old = std::find_if(current.keys_.begin(), current.keys_.end(), [&](const Key& key) {
    return key.info.dataset == dataset && key.info.state == kActive;
  });
  if (old == current.keys_.end() && retire_active) {
    throw KeyError(message("[keyring] Expected a key of dataset ", dataset,
                           " to rotate, received none. Create one first."));
  }
  if (old == current.keys_.end() || retire_active) {
    if (retire_active) old->info.state = kRetired;
    const SecretBytes id = SecretBytes::random(kIdBytes);
    current.keys_.push_back(
        {{to_hex(id.bytes()), dataset, now(), std::string(kActive), "default", ""}, SecretBytes::random(kKeyBytes)});
    write_keyring(path_, serialize(current.keys_).bytes(), IfExists::replace);
  }
  const std::lock_guard lock(*mutex_);
  keys_ = std::move(current.keys_);
}

const Keyring::Key* Keyring::active(const std::string& dataset) const {
  for (const Key& key : keys_) {
    if (key.info.dataset == dataset && key.info.state == kActive) return &key;
  }
  return nullptr;
}

const Keyring::Key& Keyring::find(const std::string& key_id) const {
  for (const Key& key : keys_) {
    if (key.info.id == key_id) return key;
  }
  throw KeyError(message("[keyring] Expected key ", key_id, " in ", path_,
                         ", received none of that id. Use the keyring that holds the key of this dataset."));
}

std::vector<KeyInfo> Keyring::list() const {
  const std::lock_guard lock(*mutex_);
  std::vector<KeyInfo> infos;
  for (const Key& key : keys_) infos.push_back(key.info);
  return infos;
}

WrappedKey Keyring::wrap(const std::string& dataset, std::span<const std::byte> data_key) const {
  if (data_key.size() != kKeyBytes) {
    throw InvalidArgument(
        message("[keyring] Expected a data key of 32 bytes, received ", data_key.size(), "."));
  }
  const std::lock_guard lock(*mutex_);
  const Key* key = active(dataset);
  if (key == nullptr) {
    throw KeyError(message("[keyring] Expected an active key of dataset ", dataset, " in ", path_,
                           ", received none. Create one with `hushgrad keys create`."));
  }
  return {key->info.id, aes256_kwp_wrap(key->secret.bytes(), data_key), generation()};
}

SecretBytes Keyring::unwrap(const WrappedKey& wrapped) const {
  const std::lock_guard lock(*mutex_);
  std::optional<SecretBytes> data_key = aes256_kwp_unwrap(find(wrapped.key_id).secret.bytes(), wrapped.bytes);
  if (!data_key || data_key->size() != kKeyBytes) {
    throw SealError(
        "[keyring] Expected a data key wrapped under the named key, received one that was altered or wrapped "
        "under another. Use an intact copy of the file.");
  }
  return std::move(*data_key);
}

KeyInfo Keyring::key(const std::string& key_id) const {
  const std::lock_guard lock(*mutex_);
  return find(key_id).info;
}

}  // namespace hushgrad
