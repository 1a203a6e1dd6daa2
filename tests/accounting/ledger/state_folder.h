// Where the marks of what a user has seen lie, as another user would have it, until the end of the scope.
#pragma once

#include <cstdlib>
#include <string>

namespace hushgrad::ledger_test {

class StateFolder {
 public:
  explicit StateFolder(const std::string& path) {
    if (const char* before = std::getenv("HUSHGRAD_STATE_DIR")) before_ = before;
    setenv("HUSHGRAD_STATE_DIR", path.c_str(), 1);
  }
  ~StateFolder() {
    if (before_.empty()) {
      unsetenv("HUSHGRAD_STATE_DIR");
    } else {
      setenv("HUSHGRAD_STATE_DIR", before_.c_str(), 1);
    }
  }
  StateFolder(const StateFolder&) = delete;
  StateFolder& operator=(const StateFolder&) = delete;

 private:
  std::string before_;
};

}  // namespace hushgrad::ledger_test
