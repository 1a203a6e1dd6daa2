#include "dpcore/sampling/sampling_rate.h"

#include <cmath>
#include <numeric>

#include "dpcore/error.h"

namespace hushgrad {
namespace {

using Wide = unsigned __int128;

// Whether the double d in (0, 1] is at least numerator / denominator. d = mantissa / 2^shift with a mantissa of 53 bits,
// and d is close to the fraction, so that both products fit 128 bits.
bool reaches(double d, std::uint64_t numerator, std::uint64_t denominator) {
  int exponent;
  const auto mantissa = static_cast<std::uint64_t>(std::ldexp(std::frexp(d, &exponent), 53));
  return Wide{mantissa} * denominator >= Wide{numerator} << (53 - exponent);
}

}  // namespace

SamplingRate::SamplingRate(std::int64_t numerator, std::int64_t denominator) {
  if (!(1 <= numerator && numerator <= denominator && denominator <= max_denominator)) {
    throw InvalidArgument(message("[sampling_rate] Expected a fraction in (0, 1] with a denominator of at most 2^62, received ",
                                  numerator, " / ", denominator, ". Use batch_size / population."));
  }
  const std::int64_t common = std::gcd(numerator, denominator);
  numerator_ = numerator / common;
  denominator_ = denominator / common;
}

SamplingRate SamplingRate::from_double(double rate) {
  if (!(rate >= 0x1p-62 && rate <= 1.0)) {
    throw InvalidArgument(message("[sampling_rate] Expected sampling_rate in [2^-62, 1], received ", rate,
                                  ". Use expected_batch_size / population."));
  }
  return {static_cast<std::int64_t>(std::floor(std::ldexp(rate, 62))), max_denominator};
}

double SamplingRate::charged() const {
  const double near = static_cast<double>(numerator_) / static_cast<double>(denominator_);
  const auto n = static_cast<std::uint64_t>(numerator_), d = static_cast<std::uint64_t>(denominator_);
  // The quotient of two rounded numbers is within three units of the last place.
  double rate = near;
  for (int i = 0; i < 4; ++i) rate = std::nextafter(rate, 0.0);
  while (!reaches(rate, n, d)) rate = std::nextafter(rate, 2.0);
  return rate;
}

}  // namespace hushgrad
