// Probabilities of the standard normal distribution.
#pragma once

#include <cmath>

namespace hushgrad {

/// P(Z > z), also where that is far below 1e-16.
inline double normal_tail(double z) { return std::erfc(z * 0.70710678118654752440) / 2; }

/// P(from < Z <= to), without cancellation on either side.
inline double normal_between(double from, double to) {
  return from > 0 ? normal_tail(from) - normal_tail(to) : normal_tail(-to) - normal_tail(-from);
}

}  // namespace hushgrad
