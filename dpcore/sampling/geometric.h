// How many records to pass over until the next one that is taken.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "dpcore/error.h"
#include "dpcore/sampling/sampling_rate.h"

namespace hushgrad {
namespace internal {

/// A fraction in [0, 1) in units of 2^(-64 L), least significant word first.
template <std::size_t L>
using Fixed = std::array<std::uint64_t, L>;

/// A real number in [0, 1) between two fractions.
template <std::size_t L>
struct Enclosure {
  Fixed<L> lower, upper;
};

/// Enclosures of (1 - rate)^(2^j), j = 0 ... 62, rate < 1.
template <std::size_t L>
using Powers = std::array<Enclosure<L>, 63>;
template <std::size_t L>
Powers<L> powers_of_failure(const SamplingRate& rate);

/// The largest g <= 2^(log2_limit + 1) - 1 such that every number in [u, u + 2^(-64 L)) is below (1 - rate)^g, or nothing if
/// the digits in u do not decide it.
template <std::size_t L>
std::optional<std::int64_t> last_power_above(const Fixed<L>& u, const Powers<L>& powers, int log2_limit);

}  // namespace internal

/// Number of failures before the first success of trials that succeed with probability `rate`, exactly.
///
/// By inversion: with U uniform on [0, 1), max{g : U < (1 - rate)^g} is geometric. U is known by its first 64 binary digits
/// and the power by an enclosure in integers; where these do not decide, U gets more digits and the enclosure more words.
/// So the result is that of real arithmetic, at about a hundred nanoseconds. Immutable: threads may share it.
class Geometric {
 public:
  explicit Geometric(const SamplingRate& rate);

  /// min(failures, limit). limit >= 0. Takes one word; more with probability below 2^-50.
  template <typename Words>
  std::int64_t draw(Words& words, std::int64_t limit) const {
    if (limit <= 0 || always_) return 0;
    int log2_limit = 0;
    while (log2_limit < 62 && limit >> (log2_limit + 1) != 0) ++log2_limit;
    const internal::Fixed<1> u{words()};
    auto failures = internal::last_power_above<1>(u, powers_, log2_limit);
    if (!failures) failures = with_more_digits<2>(words, {0, u[0]}, log2_limit);
    return *failures < limit ? *failures : limit;
  }

 private:
  // u holds its digits at the top; the lower half is to be drawn.
  template <std::size_t L, typename Words>
  std::int64_t with_more_digits(Words& words, internal::Fixed<L> u, int log2_limit) const {
    for (std::size_t i = 0; i < L / 2; ++i) u[L / 2 - 1 - i] = words();
    if (const auto failures = internal::last_power_above<L>(u, internal::powers_of_failure<L>(rate_), log2_limit)) return *failures;
    if constexpr (L == 16) {
      // 2^-900 for a random word; a stream that keeps agreeing with the powers is none.
      throw InvalidState("[sampling] Expected random words, received ones that follow a power of the rate for 1024 digits.");
    } else {
      internal::Fixed<2 * L> longer{};
      for (std::size_t i = 0; i < L; ++i) longer[L + i] = u[i];
      return with_more_digits<2 * L>(words, longer, log2_limit);
    }
  }

  SamplingRate rate_;
  bool always_;
  internal::Powers<1> powers_{};
};

}  // namespace hushgrad
