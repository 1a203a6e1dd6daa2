// The rounded Gaussian without any approximation, in integers only.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>

#include "dpcore/error.h"
#include "dpcore/random/exact.h"

namespace hushgrad {
namespace internal {

/// The digits (64 bits each) of a uniform number in [0, 1), drawn as far as somebody looks.
class LazyUniform {
 public:
  template <typename Words>
  std::uint64_t digit(Words& words, std::size_t place) {
    if (place >= digits_.size()) {
      // Numbers agree for 512 bits with probability 2^-512.
      throw InvalidState("[noise] Expected random words, received ones that repeat each other for 512 bits.");
    }
    while (known_ <= place) digits_[known_++] = words();
    return digits_[place];
  }
  template <typename Words>
  bool below(LazyUniform& other, Words& words) {
    for (std::size_t place = 0;; ++place) {
      const std::uint64_t mine = digit(words, place), its = other.digit(words, place);
      if (mine != its) return mine < its;
    }
  }

 private:
  std::array<std::uint64_t, 8> digits_;
  std::size_t known_ = 0;
};

/// True with probability exp(-1/2). The run of uniforms that descend from 1/2 has length n or more with probability
/// 2^-n / n!, hence an even length with probability exp(-1/2) (von Neumann 1951).
template <typename Words>
bool exp_minus_half(Words& words) {
  LazyUniform links[2];
  if (links[0].digit(words, 0) >> 63 != 0) return true;
  for (std::size_t length = 1;; ++length) {
    LazyUniform& next = links[length % 2];
    next = LazyUniform();
    if (!next.below(links[(length + 1) % 2], words)) return length % 2 == 0;
  }
}

/// True with probability (2 k + x) / (2 k + 2).
template <typename Words>
bool nearly_one(Words& words, std::uint64_t k, LazyUniform& x) {
  const std::uint64_t choice = uniform_below(words, 2 * k + 2);
  if (choice != 2 * k) return choice < 2 * k;
  LazyUniform r;
  return r.below(x, words);
}

/// True with probability exp(-x (2 k + x) / (2 k + 2)): the same run, each link of which also passes nearly_one.
template <typename Words>
bool exp_minus_step(Words& words, std::uint64_t k, LazyUniform& x) {
  LazyUniform links[2];
  LazyUniform* last = &x;
  for (std::size_t length = 0;; ++length) {
    LazyUniform& next = links[length % 2];
    next = LazyUniform();
    if (!next.below(*last, words) || !nearly_one(words, k, x)) return length % 2 == 0;
    last = &next;
  }
}

/// The integer part k and fraction x of the absolute value of a standard normal number.
struct HalfNormal {
  std::uint64_t k;
  LazyUniform x;
};

/// k with probability proportional to exp(-k^2 / 2), x uniform, kept with probability exp(-x (2 k + x) / 2): together
/// exp(-(k + x)^2 / 2).
template <typename Words>
HalfNormal half_normal(Words& words) {
  const auto all = [&](std::uint64_t times, auto&& test) {
    for (std::uint64_t i = 0; i < times; ++i) {
      if (!test()) return false;
    }
    return true;
  };
  while (true) {
    std::uint64_t k = 0;
    while (exp_minus_half(words)) ++k;
    if (k > 1000) throw InvalidState("[noise] Expected random words, received a thousand alike.");  // exp(-500)
    if (!all(k * (k - 1), [&] { return exp_minus_half(words); })) continue;
    HalfNormal result{k, {}};
    if (all(k + 1, [&] { return exp_minus_step(words, k, result.x); })) return result;
  }
}

}  // namespace internal

/// Integers round(X) for X ~ N(0, sigma^2) exactly: no table, no floating-point arithmetic, no tail cut off.
///
/// Karney (2016), "Sampling exactly from the normal distribution", algorithm N, gives the digits of a normal number as far as
/// one wants to see them; rounding looks at as many as it needs. sigma, a double, is taken as the fraction it is.
/// sigma in [2^-9, 2^46], else InvalidArgument. Immutable: threads may share it.
/// Cost: about 15 random words. Running time depends on what is drawn, never on data.
class ExactGaussian {
 public:
  explicit ExactGaussian(double sigma) {
    if (!(sigma >= 0x1p-9 && sigma <= 0x1p46)) {
      throw InvalidArgument(message("[noise] Expected a standard deviation in [2^-9, 2^46] grid steps, received ", sigma, "."));
    }
    int exponent;
    mantissa_ = static_cast<std::uint64_t>(std::ldexp(std::frexp(sigma, &exponent), 53));
    shift_ = 64 + 53 - exponent;
  }

  template <typename Words>
  std::int64_t draw(Words& words) const {
    const bool negative = words() >> 63 != 0;
    internal::HalfNormal number = internal::half_normal(words);
    const std::int64_t magnitude = rounded(number, words);
    return negative ? -magnitude : magnitude;
  }

 private:
  using Wide = unsigned __int128;

  // sigma * (k + x) + 1/2, rounded down. In units of 2^-shift and with one digit of x the product lies in
  // [known, known + mantissa), where at most one integer lies: mantissa < 2^53 < 2^shift.
  template <typename Words>
  std::int64_t rounded(internal::HalfNormal& number, Words& words) const {
    const Wide scaled = (Wide{number.k} << 64) + number.x.digit(words, 0);
    const Wide known = Wide{mantissa_} * scaled + (Wide{1} << (shift_ - 1));
    const auto low = static_cast<std::int64_t>(known >> shift_);
    const auto high = static_cast<std::int64_t>((known + (mantissa_ - 1)) >> shift_);
    if (low == high) return low;
    // The rest of x decides: high if 0.(further digits) >= missing / mantissa.
    Wide missing = (static_cast<Wide>(high) << shift_) - known;
    for (std::size_t place = 1; missing != 0; ++place) {
      const auto needed = static_cast<std::uint64_t>((missing << 64) / mantissa_);
      const std::uint64_t digit = number.x.digit(words, place);
      if (digit != needed) return digit > needed ? high : low;
      missing = (missing << 64) % mantissa_;
    }
    return high;
  }

  std::uint64_t mantissa_;
  int shift_;
};

}  // namespace hushgrad
