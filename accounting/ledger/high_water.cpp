#include "accounting/ledger/high_water.h"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

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

void HighWater::remember(const LedgerHead& head) const {
  if (path_.empty()) return;
  const std::string sibling = path_ + "." + std::to_string(getpid());
  std::ofstream(sibling) << head.sequence << ' ' << head.hash << '\n';
  std::error_code error;
  fs::rename(sibling, path_, error);
  if (error) fs::remove(sibling, error);
}

}  // namespace hushgrad::ledger
