#include "dpcore/noise/lattice.h"

#include <algorithm>
#include <cmath>

#include "dpcore/error.h"
#include "dpcore/noise/gaussian_kernel.h"

namespace hushgrad {
namespace {

constexpr double kGridToSensitivity = 0x1p-14;
constexpr double kGridToNoise = 0x1p-10;
constexpr double kUp = 1.0 + 0x1p-50;  // more than what a handful of operations can have rounded down

void check(double noise_multiplier, double l2_sensitivity, std::uint64_t dimension) {
  if (!(noise_multiplier == 0.0 || (noise_multiplier >= 0x1p-32 && noise_multiplier <= 0x1p32))) {
    throw InvalidArgument(message("[noise] Expected noise_multiplier 0 or in [2^-32, 2^32], received ",
                                  noise_multiplier, ". Calibrate it from the privacy target."));
  }
  if (!(l2_sensitivity >= 0x1p-64 && l2_sensitivity <= 0x1p64)) {
    throw InvalidArgument(message("[noise] Expected l2_sensitivity in [2^-64, 2^64], received ",
                                  l2_sensitivity, ". Choose max_grad_norm near the usual gradient norm."));
  }
  if (dimension > (std::uint64_t{1} << 48)) {
    throw InvalidArgument(
        message("[noise] Expected dimension <= 2^48, received ", dimension, ". Check the parameters."));
  }
}

}  // namespace

Lattice choose_lattice(double noise_multiplier, double l2_sensitivity, std::uint64_t dimension) {
  check(noise_multiplier, l2_sensitivity, dimension);
  const double root = std::sqrt(static_cast<double>(std::max<std::uint64_t>(dimension, 1)));
  double limit = kGridToSensitivity * l2_sensitivity / root;
  if (noise_multiplier > 0.0) limit = std::min(limit, kGridToNoise * noise_multiplier * l2_sensitivity);
  const double grid = std::ldexp(1.0, std::ilogb(limit));
  const double noise_stddev = noise_multiplier * (l2_sensitivity + root * grid) * kUp;
  if (noise_stddev > internal::kMaxSigmaUnits * grid) {
    throw InvalidArgument(
        message("[noise] Expected a noise standard deviation of at most 2^46 grid steps, received ",
                noise_stddev / grid, " for noise_multiplier ", noise_multiplier, " in dimension ", dimension,
                ". Lower noise_multiplier."));
  }
  return {grid, noise_stddev};
}

}  // namespace hushgrad
