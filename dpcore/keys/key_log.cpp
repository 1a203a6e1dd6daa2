#include "dpcore/keys/key_log.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "dpcore/error.h"
#include "dpcore/keys/bytes.h"
#include "dpcore/keys/durable_file.h"
#include "dpcore/keys/kdf.h"
#include "dpcore/keys/private_file.h"

namespace hushgrad {
namespace {

using nlohmann::json;

constexpr const char* kContext = "key log";
constexpr std::size_t kMaxBytes = 256 * 1024 * 1024;

[[noreturn]] void refuse(const std::string& path, std::uint64_t sequence, const char* what) {
  throw KeyError(message("[key_log] Expected ", what, " in line ", sequence, " of ", path,
                         ", received something else: the log was altered. Restore it from a copy; until then no key is "
                         "changed."));
}

[[noreturn]] void io_error(const std::string& path, const char* step) {
  throw IoError(message("[key_log] Expected to ", step, " ", path, ", received: ", std::strerror(errno),
                        ". Without its entry in the log nothing is done."));
}

json fields(const KeyLogEntry& entry) {
  return {{"sequence", entry.sequence}, {"previous", entry.previous},     {"time", entry.time},
          {"keyring", entry.keyring},   {"generation", entry.generation}, {"actor", entry.actor},
          {"action", entry.action},     {"details", entry.details}};
}

KeyLogEntry entry_from(const json& line) {
  return {line.at("sequence"),   line.at("previous"), line.at("time"),   line.at("keyring"),
          line.at("generation"), line.at("actor"),    line.at("action"), line.at("details")};
}

KeyLogEntry verified(const std::string& path, std::string_view text, std::uint64_t sequence, const std::string& previous,
                     const PublicKey& signer) {
  json line = json::parse(text, nullptr, false);
  try {
    const std::string digits = line.at("signature");
    if (line.dump() != text || !is_hex(digits, digits.size() / 2)) refuse(path, sequence, "one canonical JSON object");
    std::vector<std::byte> signature(digits.size() / 2);
    from_hex(digits, signature);
    line.erase("signature");
    KeyLogEntry entry = entry_from(line);
    if (fields(entry).dump() != line.dump()) refuse(path, sequence, "the fields of an entry");
    if (entry.sequence != sequence || entry.previous != previous) refuse(path, sequence, "the successor of the line before");
    if (!signer.verify(kContext, text_bytes(line.dump()), signature)) refuse(path, sequence, "a signature of the keyring");
    return entry;
  } catch (const json::exception&) {
    refuse(path, sequence, "the fields of an entry");
  }
}

std::string hash_of(std::string_view line) { return to_hex(sha384(text_bytes(line))); }

}  // namespace

KeyLog KeyLog::read(const std::string& path, const PublicKey& signer) {
  KeyLog log;
  log.path_ = path;
  struct stat status;
  if (::lstat(path.c_str(), &status) != 0 && errno == ENOENT) return log;
  const SecretBytes bytes = read_private_file(path, "key log", kMaxBytes);
  std::string_view rest(reinterpret_cast<const char*>(bytes.bytes().data()), bytes.size());
  for (auto end = rest.find('\n'); end != rest.npos; end = rest.find('\n')) {
    const std::string_view line = rest.substr(0, end);
    log.entries_.push_back(verified(path, line, log.sequence() + 1, log.hash_at(log.sequence()), signer));
    log.hashes_.push_back(hash_of(line));
    log.bytes_ += end + 1;
    rest.remove_prefix(end + 1);
  }
  return log;
}

std::string KeyLog::hash_at(std::uint64_t sequence) const {
  return sequence == 0 ? std::string(96, '0') : hashes_.at(sequence - 1);
}

void KeyLog::check_holds(std::uint64_t sequence, const std::string& hash) const {
  if (sequence <= entries_.size() && hash_at(sequence) == hash) return;
  throw KeyError(message("[key_log] Expected entry ", sequence, " of the key log at ", path_,
                         " as the keyring knows it, received a log without it: it was cut, erased or exchanged. Restore "
                         "it from a copy; until then no key is changed."));
}

std::set<std::string> KeyLog::used_nonces() const {
  std::set<std::string> nonces;
  for (const KeyLogEntry& entry : entries_) {
    const auto nonce = entry.details.find("nonce");
    if (nonce != entry.details.end() && entry.action != "denied") nonces.insert(nonce->second);
  }
  return nonces;
}

void KeyLog::append(KeyLogEntry entry, const SigningKey& signer) {
  entry.sequence = sequence() + 1;
  entry.previous = hash_at(sequence());
  json line = fields(entry);
  line["signature"] = to_hex(signer.sign(kContext, text_bytes(line.dump())));
  const std::string text = line.dump() + "\n";

  const Descriptor file(::open(path_.c_str(), O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0600));
  if (file.get() < 0) io_error(path_, "open");
  check_private_file(file.get(), path_, "key log", kMaxBytes);  // it may be another than the one that was read
  // What a crash left of a line was never acknowledged.
  if (::ftruncate(file.get(), static_cast<off_t>(bytes_)) != 0) io_error(path_, "write");
  if (!write_at(file.get(), bytes_, text_bytes(text))) io_error(path_, "write");
  if (::fsync(file.get()) != 0) io_error(path_, "fsync");
  if (bytes_ == 0) sync_folder_of(path_);
  hashes_.push_back(hash_of(std::string_view(text).substr(0, text.size() - 1)));
  entries_.push_back(std::move(entry));
  bytes_ += text.size();
}

}  // namespace hushgrad
