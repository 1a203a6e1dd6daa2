// Entropy from the operating system, and nothing else.
#pragma once

#include <array>
#include <cstddef>

namespace hushgrad {

/// 384 bits of getentropy(3), which is getrandom(2) on Linux: blocks until the kernel's generator is seeded,
/// once after boot, and never afterwards. Wiped on destruction. Errors: IoError if the kernel refuses.
class OsEntropy {
 public:
  OsEntropy();
  ~OsEntropy();
  OsEntropy(const OsEntropy&) = delete;
  OsEntropy& operator=(const OsEntropy&) = delete;

  const std::array<std::byte, 48>& bytes() const noexcept { return bytes_; }

 private:
  std::array<std::byte, 48> bytes_;
};

}  // namespace hushgrad
