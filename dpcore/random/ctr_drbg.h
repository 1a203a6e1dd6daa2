// CTR_DRBG with AES-256 and no derivation function, NIST SP 800-90A Rev. 1, section 10.2.1: the deterministic
// part of the generator. Where the entropy comes from, and when, is decided in dpcore/random/csprng.h.
#pragma once

#include <cstddef>
#include <span>

#include "dpcore/random/aes_ctr.h"

namespace hushgrad {

/// Deterministic: equal entropy and equal requests give equal bytes. Each request ends with a new key and
/// counter, so a state seen later does not tell what was generated before it. Not thread-safe.
class CtrDrbg {
 public:
  static constexpr std::size_t kEntropyBytes = 48;        // seedlen: 256 bits of key and 128 of counter
  static constexpr std::size_t kMaxRequestBytes = 65536;  // SP 800-90A Table 3
  using Entropy = std::span<const std::byte, kEntropyBytes>;

  /// `entropy` must have full entropy (384 unpredictable bits): there is no derivation function to condense
  /// it.
  explicit CtrDrbg(Entropy entropy);

  void reseed(Entropy entropy);
  /// At most kMaxRequestBytes, else InvalidArgument. No additional input.
  void generate(std::span<std::byte> out);

 private:
  void update(Entropy provided);

  AesCtr stream_;  // stands at V + 1
};

}  // namespace hushgrad
