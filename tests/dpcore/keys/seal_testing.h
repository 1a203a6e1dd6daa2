// Shared by the tests of keys and sealed files: vectors, temporary folders, files as bytes, faults of system
// calls.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "dpcore/keys/bytes.h"

namespace hushgrad::seal_testing {

using Bytes = std::vector<std::byte>;

inline Bytes bytes_of(std::string_view text) {
  const auto view = text_bytes(text);
  return {view.begin(), view.end()};
}

inline Bytes hex(std::string digits) {
  for (char& c : digits) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  Bytes out(digits.size() / 2);
  from_hex(digits, out);
  return out;
}

inline Bytes read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  return bytes_of(text);
}

inline void write_file(const std::filesystem::path& path, std::span<const std::byte> bytes) {
  std::filesystem::remove(path);  // ext4 flushes a file that is cut to zero and written anew
  std::ofstream out(path, std::ios::binary);
  out.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

/// The folder of published test vectors, or nothing (then a test prints so and skips).
inline std::optional<std::filesystem::path> vectors() {
  for (const std::string& root :
       {std::string(std::getenv("HUSHGRAD_SHARED_DIR") ? std::getenv("HUSHGRAD_SHARED_DIR") : ""),
        std::string(HUSHGRAD_SHARED_DIR), std::string(HUSHGRAD_SOURCE_DIR) + "/../shared"}) {
    if (!root.empty() && std::filesystem::is_directory(root + "/vectors")) return root + "/vectors";
  }
  return std::nullopt;
}

#define SKIP_WITHOUT_VECTORS()                                                                         \
  if (!::hushgrad::seal_testing::vectors()) {                                                          \
    GTEST_SKIP()                                                                                       \
        << "SKIPPED: no published vectors; set HUSHGRAD_SHARED_DIR to the folder that holds vectors/"; \
  }

inline nlohmann::json load_vectors(const std::string& name) {
  std::ifstream in(*vectors() / name);
  return nlohmann::json::parse(in);
}

/// An empty folder, removed with all in it.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "hushgrad_test_XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  std::vector<std::string> names() const {
    std::vector<std::string> found;
    for (const auto& entry : std::filesystem::directory_iterator(path_)) {
      found.push_back(entry.path().filename());
    }
    return found;
  }

 private:
  std::filesystem::path path_;
};

/// The text of the exception of type E that `call` throws; a failure when it throws another or none.
template <typename E, typename Call>
std::string thrown(const Call& call) {
  try {
    call();
  } catch (const E& error) {
    return error.what();
  } catch (const std::exception& error) {
    ADD_FAILURE() << "another error: " << error.what();
    return "";
  }
  ADD_FAILURE() << "no error";
  return "";
}

template <typename E, typename Call>
void expect_error(const Call& call, std::string_view part) {
  const std::string text = thrown<E>(call);
  EXPECT_NE(text.find(part), text.npos) << "expected \"" << part << "\" in: " << text;
}

/// What the program's openat(O_CREAT), pwrite, fsync, renameat and renameat2 do: the test program defines
/// these functions itself (durable_file_test.cpp), so that the library under test calls them. Faults hit the
/// `countdown`-th such call.
struct SyscallFault {
  enum class Action { none, fail, kill, shorten };
  Action action = Action::none;
  int countdown = 0;
  int error = 0;  // errno, for fail
  int calls = 0;  // seen since arm()
  int fsyncs = 0;

  static SyscallFault& current();
  void arm(Action what, int at, int errno_value = 0) { *this = {what, at, errno_value, 0, 0}; }
  void disarm() { action = Action::none; }
};

}  // namespace hushgrad::seal_testing
