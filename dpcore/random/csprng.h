// The one generator behind batch selection, noise and keys.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "dpcore/random/ctr_drbg.h"

namespace hushgrad {

/// Cryptographically secure random bytes: CTR_DRBG with AES-256 (NIST SP 800-90A Rev. 1, section 10.2.1,
/// without derivation function), seeded with 384 bits from the operating system.
///
/// Guarantees
/// - Unpredictable without the operating system's entropy, as long as AES-256 is a pseudo-random permutation.
/// There is
///   no way to pass a seed; tests that need to repeat a stream use dpcore/random/insecure_seed.h.
/// - A forked child never continues its parent's stream: before every answer the process is compared with the
/// one
///   that seeded, and buffered bytes are thrown away.
/// - Fresh entropy is mixed in after every mebibyte, and on reseed(). So two copies of a virtual machine part
/// at the
///   next reseed if their kernels do.
/// - Bytes that were handed out, and old states, are erased: a later look into memory does not reveal them.
///
/// Threads: one object a thread; nothing is locked. Neither copied nor moved: a copy would repeat the stream.
/// Errors: IoError if the operating system gives no entropy, InvalidState if OpenSSL fails. Never weaker
/// output.
class Csprng {
 public:
  Csprng();
  ~Csprng();
  Csprng(const Csprng&) = delete;
  Csprng& operator=(const Csprng&) = delete;

  /// Overwrites `out` with random bytes. Empty is fine.
  void fill(std::span<std::byte> out);
  /// Uniform on 0 ... 2^64 - 1.
  std::uint64_t next_u64();
  /// Mixes 384 fresh bits of the operating system into the state. Cheap (microseconds): called before every
  /// noise draw. PrivacyViolation on a stream that several processes share: it is for batches, not for noise.
  void reseed();
  /// True only for a stream that comes out of an InsecureSeed. Ledger and report must say so.
  bool insecure() const noexcept { return origin_ == Origin::insecure_seed; }

 private:
  friend class InsecureSeed;
  friend class SharedStream;
  enum class Origin : std::uint8_t { system, insecure_seed, shared_key };
  Csprng(CtrDrbg::Entropy entropy, Origin origin);

  void check_process();
  void generate(std::span<std::byte> out);

  CtrDrbg drbg_;
  std::array<std::byte, 1024> buffer_;
  std::size_t used_ = sizeof(buffer_);  // bytes of buffer_ already handed out
  std::size_t since_reseed_ = 0;        // bytes generated since entropy was last mixed in
  std::uint64_t process_;
  Origin origin_ = Origin::system;
};

}  // namespace hushgrad
