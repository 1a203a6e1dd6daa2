// One stream that the processes of a training run all draw, so that they agree on batches without asking each other.
#pragma once

#include <array>
#include <cstddef>
#include <span>

#include "dpcore/random/csprng.h"

namespace hushgrad {

/// What the processes agree on: 384 bits of one process's Csprng, given to the others over their own connection. Erased with
/// the object; never written anywhere.
class SharedKey {
 public:
  static constexpr std::size_t kBytes = CtrDrbg::kEntropyBytes;

  /// Fresh.
  explicit SharedKey(Csprng& rng) { rng.fill(bytes_); }
  /// As another process of the run made it. InvalidArgument unless kBytes long.
  static SharedKey received(std::span<const std::byte> bytes);
  SharedKey(const SharedKey&) = default;
  SharedKey& operator=(const SharedKey&) = default;
  ~SharedKey();

  std::span<const std::byte, kBytes> bytes() const { return bytes_; }

 private:
  SharedKey() = default;
  std::array<std::byte, kBytes> bytes_{};
};

/// The same batches in every process that holds the key; to everybody else as unpredictable as Csprng's.
///
/// For batches only. Noise drawn from it throws PrivacyViolation (Csprng::reseed): equal noise in two processes cancels, or
/// adds up to what no account covers. A forked child throws InvalidState. No fresh entropy is mixed in: every process would have
/// to mix in the same (CTR_DRBG allows 2^48 requests under one key, SP 800-90A table 3).
class SharedStream {
 public:
  explicit SharedStream(const SharedKey& key) : stream_(key.bytes(), Csprng::Origin::shared_key) {}
  SharedStream(const SharedStream&) = delete;
  SharedStream& operator=(const SharedStream&) = delete;

  Csprng& stream() noexcept { return stream_; }

 private:
  Csprng stream_;
};

}  // namespace hushgrad
