#include "accounting/accountants/gap.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace hushgrad {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kUp = 1 + 1e-12;  // above the rounding of the formulas here
// Share of delta that may pay for the tail of the log-ratio: a smaller one costs only its logarithm.
constexpr double kTailShare = 1e-3;

Spending without_gap(Spending spending) {
  spending.gap_order = spending.gap_divergence = spending.failure = 0;
  return spending;
}

double ratio_bound(const Spending& spending, double beta) {
  if (spending.gap_divergence == 0) return 0;
  return (spending.gap_divergence - std::log(beta) / (spending.gap_order - 1)) * kUp;
}

}  // namespace

Interval with_gap_epsilon(const Spending& spending, double delta, const IdealBounds& ideal_epsilon) {
  if (!spending.has_gap()) return ideal_epsilon(spending, delta);
  const Spending ideal = without_gap(spending);
  // A smaller share of delta for the ideal release makes its epsilon larger and leaves more for the rest.
  for (double share : {0.5, 0.9}) {
    const double first = ideal_epsilon(ideal, delta * (1 - share)).upper;
    if (!(first < 600)) break;
    const double growth = (1 + std::exp(first + 0.5)) * kUp;
    const double beta = spending.gap_divergence > 0 ? kTailShare * delta / growth : 0;
    const double lambda = ratio_bound(spending, beta);
    const double rest = growth * (beta + spending.failure) * kUp;
    const double left = (delta - rest) * std::exp(-lambda) / kUp;
    if (!(lambda <= 0.5 && left >= delta * (1 - share))) continue;
    const Interval bounds = ideal_epsilon(ideal, left);
    const double upper = (bounds.upper + 2 * lambda) * kUp;
    const double more = std::min(delta * std::exp(lambda) + rest, 1 - 1e-15);
    return {std::max(0.0, ideal_epsilon(ideal, more).lower - 2 * lambda), upper};
  }
  return {0, kInfinity};
}

Interval with_gap_delta(const Spending& spending, double epsilon, const IdealBounds& ideal_delta) {
  if (!spending.has_gap()) return ideal_delta(spending, epsilon);
  if (epsilon == kInfinity) return {0, std::min(1.0, spending.failure)};
  const Spending ideal = without_gap(spending);
  const double growth = (1 + std::exp(std::min(epsilon, 700.0))) * kUp;
  const double near = ideal_delta(ideal, epsilon).upper;
  const double beta = spending.gap_divergence > 0 ? std::max(kTailShare * near / growth, 1e-300) : 0;
  const double lambda = ratio_bound(spending, beta);
  const double rest = growth * (beta + spending.failure) * kUp;
  if (!(2 * lambda <= epsilon)) return {0, 1};
  const double upper = std::exp(lambda) * ideal_delta(ideal, epsilon - 2 * lambda).upper * kUp + rest;
  const double lower = (ideal_delta(ideal, epsilon + 2 * lambda).lower - rest * std::exp(2 * lambda)) * std::exp(-lambda);
  const double safe = std::min(1.0, upper);
  return {std::clamp(lower / kUp, 0.0, safe), safe};
}

}  // namespace hushgrad
