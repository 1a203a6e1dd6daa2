// Random 64-bit words for algorithms that take them one at a time.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "dpcore/random/csprng.h"

namespace hushgrad {

/// Words of `source` (a Csprng or a KeyStream), fetched in portions. Lives within one call: what was fetched is wiped with the
/// object, and is not checked against a fork in between. Not thread-safe.
template <typename Source = Csprng>
class WordStream {
 public:
  explicit WordStream(Source& source) : source_(source) {}
  ~WordStream() { wipe(std::as_writable_bytes(std::span(words_))); }
  WordStream(const WordStream&) = delete;
  WordStream& operator=(const WordStream&) = delete;

  std::uint64_t operator()() {
    if (used_ == words_.size()) {
      source_.fill(std::as_writable_bytes(std::span(words_)));
      used_ = 0;
    }
    return words_[used_++];
  }

 private:
  Source& source_;
  std::array<std::uint64_t, 256> words_;
  std::size_t used_ = 256;
};

}  // namespace hushgrad
