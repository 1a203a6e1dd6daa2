// From log delta with its error at every epsilon to intervals.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "accounting/accountants/gaussian.h"
#include "accounting/accountants/root.h"

namespace hushgrad {

inline double upper_end(LogDelta log_delta) { return std::min(1.0, std::exp(log_delta.value + log_delta.error)); }
inline double lower_end(LogDelta log_delta) { return std::min(1.0, std::exp(log_delta.value - log_delta.error)); }

inline Interval delta_interval(LogDelta log_delta) {
  return {lower_end(log_delta), std::max(upper_end(log_delta), std::numeric_limits<double>::min())};
}

/// Bounds of the epsilon at which log_delta_at(epsilon), falling, passes log(delta). guess >= 0: roughly there.
template <typename LogDeltaAt>
Interval solve_epsilon(LogDeltaAt&& log_delta_at, double guess, double delta) {
  constexpr double kRootTolerance = 1e-10;
  const double target = std::log(delta);
  const auto upper = [&](double e) { return log_delta_at(e).value + log_delta_at(e).error - target; };
  const auto lower = [&](double e) { return log_delta_at(e).value - log_delta_at(e).error - target; };
  const double step = 0.01 * guess + 1e-3;
  const double above = find_crossing(upper, guess, step, kRootTolerance).above;
  return {std::min(find_crossing(lower, std::min(above, 1e300), step, kRootTolerance).below, above), above};
}

/// Roughly the epsilon of a Gaussian with that mu.
inline double gaussian_guess(double mu, double delta) { return mu * mu / 2 + mu * std::sqrt(-2 * std::log(delta)); }

}  // namespace hushgrad
