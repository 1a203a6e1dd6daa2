#include "accounting/ledger/high_water.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

namespace hushgrad::ledger {
namespace {

namespace fs = std::filesystem;

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string() : value;
}

fs::path state_folder() {
  if (const std::string own = variable("HUSHGRAD_STATE_DIR"); !own.empty()) return own;
  if (const std::string state = variable("XDG_STATE_HOME"); !state.empty()) return fs::path(state) / "hushgrad";
  if (const std::string home = variable("HOME"); !home.empty()) return fs::path(home) / ".local/state/hushgrad";
  return {};
}

// One process or thread at a time, also of other handles. Whoever holds it for long was stopped, and is not waited for.
class Locked {
 public:
  explicit Locked(const std::string& path) : descriptor_(::open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600)) {
    for (int tries = 0; descriptor_ >= 0 && tries < 200 && flock(descriptor_, LOCK_EX | LOCK_NB) != 0; ++tries) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
  ~Locked() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  Locked(const Locked&) = delete;
  Locked& operator=(const Locked&) = delete;

 private:
  int descriptor_;
};

}  // namespace

HighWater::HighWater(const std::string& ledger_id) {
  const fs::path folder = state_folder();
  if (folder.empty() || folder.is_relative()) return;
  std::error_code error;
  fs::create_directories(folder / "ledgers", error);
  if (!error) path_ = (folder / "ledgers" / ledger_id).string();
}

std::optional<LedgerHead> HighWater::seen() const {
  std::ifstream file(path_);
  LedgerHead head;
  if (path_.empty() || !(file >> head.sequence >> head.hash) || head.sequence < 1) return std::nullopt;
  return head;
}

void HighWater::remember(const LedgerHead& head, const std::unordered_set<std::string>& given_up) const {
  if (path_.empty()) return;
  const Locked one(path_ + ".lock");
  const auto before = seen();
  // Whoever committed first may get here last.
  if (before && before->sequence > head.sequence && given_up.count(before->hash) == 0) return;
  static std::atomic<unsigned> number{0};
  const std::string sibling = path_ + "." + std::to_string(getpid()) + "." + std::to_string(number++);
  std::ofstream(sibling) << head.sequence << ' ' << head.hash << '\n';
  std::error_code error;
  fs::rename(sibling, path_, error);
  if (error) fs::remove(sibling, error);
}

}  // namespace hushgrad::ledger
