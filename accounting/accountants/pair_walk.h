// The outcomes of a pair on the line whose loss rises with x.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "accounting/accountants/loss_pair.h"
#include "accounting/accountants/quadrature.h"

namespace hushgrad {

/// The x in [low, high] at which the rising `loss` passes `value`, to rounding.
template <typename Loss>
double solve_rising(Loss&& loss, double value, double low, double high) {
  double f_low = loss(low) - value, f_high = loss(high) - value;
  if (!(f_low < 0)) return low;
  if (!(f_high > 0)) return high;
  bool halve = false;
  for (int i = 0; i < 100; ++i) {
    const double width = high - low;
    const double line = low + width * (f_low / (f_low - f_high));
    const double x = halve || !(line > low && line < high) ? low + width / 2 : line;
    if (!(x > low && x < high)) break;
    const double f = loss(x) - value;
    if (std::abs(f) < 1e-15 * std::max(1.0, std::abs(value)) && std::abs(f) < 1e-12) return x;
    (f < 0 ? low : high) = x;
    (f < 0 ? f_low : f_high) = f;
    halve = !halve && high - low > 0.5 * width;
  }
  return (low + high) / 2;
}

/// Model: loss(x) rising, log_q(x) the log density under Q, panel(x) a width on which five Gauss points are exact to
/// rounding. All outcomes with x in [from, to].
template <typename Model>
void walk(const Model& model, double from, double to, Outcomes& outcomes) {
  const double spacing = outcomes.spacing, offset = outcomes.offset;
  const auto loss = [&](double x) { return model.loss(x); };
  auto place = static_cast<std::int64_t>(std::floor((loss(from) - offset) / spacing));
  const double end = loss(to);
  double x = from, guess = 0;
  while (x < to) {
    const double low = offset + static_cast<double>(place) * spacing;
    double next = to;
    if (low + spacing < end) {
      // The cell is about as wide as the one before.
      double reach = guess > 0 ? std::min(to, x + 2 * guess) : to;
      if (loss(reach) < low + spacing) reach = to;
      next = solve_rising(loss, low + spacing, x, reach);
    }
    double q = 0, excess = 0;
    const double scale = model.log_q(x);
    for (double a = x; a < next;) {
      const double width = std::min(next - a, model.panel(a));
      for (const auto& node : quadrature::kGauss5) {
        const double at = a + node.at * width;
        const double p = width * node.weight * std::exp(model.log_q(at) - scale);
        q += p;
        excess += p * std::expm1(model.loss(at) - low);
      }
      a = a + width > a ? a + width : next;
    }
    if (q > 0) {
      const double above = std::clamp(std::log1p(excess / q), 0.0, spacing);
      outcomes.list.push_back({place, above, scale + std::log(q)});
    }
    guess = next - x;
    x = next;
    ++place;
  }
}

/// How many standard deviations leave out less than exp(log_rest).
inline double deviations(double log_rest) { return std::clamp(std::sqrt(std::max(0.0, -2 * log_rest)), 8.0, 37.0); }

}  // namespace hushgrad
