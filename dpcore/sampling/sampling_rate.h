// The probability with which a record enters a batch, as a fraction.
#pragma once

#include <cstdint>

namespace hushgrad {

/// An exact probability in (0, 1], in lowest terms. Immutable.
class SamplingRate {
 public:
  static constexpr std::int64_t max_denominator = std::int64_t{1} << 62;

  /// numerator / denominator, usually batch_size / population. 1 <= numerator <= denominator <= 2^62, else InvalidArgument.
  SamplingRate(std::int64_t numerator, std::int64_t denominator);
  /// The largest multiple of 2^-62 that is <= rate, so that charging `rate` never understates. rate in [2^-62, 1], else
  /// InvalidArgument (NaN included).
  static SamplingRate from_double(double rate);

  std::int64_t numerator() const noexcept { return numerator_; }
  std::int64_t denominator() const noexcept { return denominator_; }
  /// The smallest double that is not below the fraction: what is charged.
  double charged() const;

  friend bool operator==(const SamplingRate&, const SamplingRate&) = default;

 private:
  std::int64_t numerator_, denominator_;
};

}  // namespace hushgrad
