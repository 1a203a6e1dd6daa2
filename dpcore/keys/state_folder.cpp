#include "dpcore/keys/state_folder.h"

#include <fcntl.h>
#include <sys/file.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "dpcore/error.h"
#include "dpcore/keys/bytes.h"
#include "dpcore/keys/durable_file.h"
#include "dpcore/keys/kdf.h"
#include "dpcore/keys/private_file.h"

namespace hushgrad {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kSecretBytes = 32;

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string() : value;
}

fs::path root() {
  if (const std::string own = variable("HUSHGRAD_STATE_DIR"); !own.empty()) return own;
  if (const std::string state = variable("XDG_STATE_HOME"); !state.empty()) return fs::path(state) / "hushgrad";
  if (const std::string home = variable("HOME"); !home.empty()) return fs::path(home) / ".local/state/hushgrad";
  return {};
}

std::string path_of(const std::string& keyring_id) {
  const std::string folder = state_folder("keyrings");
  return folder.empty() ? folder : folder + "/" + keyring_id;
}

std::string machine_id() {
  std::ifstream file("/etc/machine-id");
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

std::string state_folder(const std::string& name) {
  const fs::path folder = root();
  if (folder.empty() || folder.is_relative()) return {};
  std::error_code error;
  fs::create_directories(folder / name, error);
  return error ? std::string() : (folder / name).string();
}

std::optional<SeenKeyring> seen_keyring(const std::string& keyring_id) {
  std::ifstream file(path_of(keyring_id));
  SeenKeyring seen;
  if (!(file >> seen.generation >> seen.time >> seen.log_sequence >> seen.log_hash)) return std::nullopt;
  return seen;
}

void remember_keyring(const std::string& keyring_id, const SeenKeyring& news) {
  const std::string path = path_of(keyring_id);
  if (path.empty()) return;
  // One writer at a time: what another has seen meanwhile is not forgotten.
  const Descriptor folder(::open(fs::path(path).parent_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder.get() < 0 || ::flock(folder.get(), LOCK_EX) != 0) return;
  SeenKeyring seen = news;
  if (const auto known = seen_keyring(keyring_id)) {
    if (known->generation > news.generation) seen = *known;
    seen.time = std::max(known->time, news.time);
  }
  const std::string sibling = path + ".new";
  std::ofstream(sibling) << seen.generation << ' ' << seen.time << ' ' << seen.log_sequence << ' ' << seen.log_hash
                         << '\n';
  std::error_code error;
  fs::rename(sibling, path, error);
  if (error) fs::remove(sibling, error);
}

SecretBytes machine_secret(bool make) {
  const std::string folder = state_folder("");
  if (folder.empty()) {
    throw IoError("[keyring] Expected a folder for state, received none. Set HUSHGRAD_STATE_DIR to one.");
  }
  const std::string path = folder + "/machine.secret";
  if (make && !fs::exists(path)) {
    DurableFile file(path, IfExists::refuse);
    file.write_at(0, SecretBytes::random(kSecretBytes).bytes());
    file.publish();
  }
  const SecretBytes secret = read_private_file(path, "machine secret", kSecretBytes);
  const Sha384 mixed = hmac_sha384(secret.bytes(), text_bytes(machine_id()));
  SecretBytes out(kSecretBytes);
  std::copy_n(mixed.begin(), kSecretBytes, out.bytes().begin());
  return out;
}

}  // namespace hushgrad
