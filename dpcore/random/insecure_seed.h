// The loud seam for tests: a stream that can be repeated. Search for InsecureSeed to find every use.
#pragma once

#include <cstdint>

#include "dpcore/random/csprng.h"

namespace hushgrad {

/// Gives the same random stream for the same number. NO PRIVACY: whoever knows or guesses the number can
/// subtract the noise. For tests and debugging only; the ledger records its use (Csprng::insecure) and the
/// report prints it in red. A forked child repeats the parent's stream, and reseed() does nothing. Noise is
/// the same on one machine; between processors with and without fused multiply-add a value may differ by one
/// grid step.
class InsecureSeed {
 public:
  explicit InsecureSeed(std::uint64_t seed);
  InsecureSeed(const InsecureSeed&) = delete;
  InsecureSeed& operator=(const InsecureSeed&) = delete;

  /// The stream, for as long as this object lives. Spelled out at every use: there is no conversion to
  /// Csprng.
  Csprng& stream() noexcept { return stream_; }

 private:
  Csprng stream_;
};

}  // namespace hushgrad
