#include "accounting/accountants/gap.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace hushgrad {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kUp = 1 + 1e-12;  // above the rounding of the formulas here
// Share of delta that may pay for the tail of the log-ratio: a smaller one costs only its logarithm.
constexpr double kTailShare = 1e-4;
// The same where delta is not known yet; enough for every delta that matters.
constexpr double kUsualTail = 1e-24;
constexpr double kLargestLambda = 0.5;
constexpr double kLargestEpsilon = 600;

Spending without_gap(Spending spending) {
  spending.gap_order = spending.gap_divergence = spending.failure = 0;
  return spending;
}

double ratio_bound(const Spending& spending, double log_beta) {
  if (spending.gap_divergence == 0) return 0;
  return (spending.gap_divergence - log_beta / (spending.gap_order - 1)) * kUp;
}

double growth_at(double epsilon) { return (1 + std::exp(epsilon)) * kUp; }

// What is left of delta for the ideal release, as a share that nearly always suffices: the epsilon is not known yet.
double likely_share(const Spending& spending, double delta) {
  constexpr double large = 50;
  return 2 * kTailShare + 1.1 * ratio_bound(spending, std::log(kTailShare * delta) - large);
}

struct Gap {
  double epsilon;  // of the ideal release
  double lambda, rest;
  bool fits = false;
};

// The ideal release is asked at `share` less of delta; fits if the rest pays for the gap.
Gap gap_at(const Spending& spending, double delta, double share, double epsilon) {
  if (!(epsilon < kLargestEpsilon)) return {epsilon, 0, 0};
  const double growth = growth_at(epsilon + kLargestLambda);
  const double beta = spending.gap_divergence > 0 ? kTailShare * delta / growth : 0;
  const double lambda = ratio_bound(spending, std::log(beta));
  const double rest = growth * (beta + spending.failure) * kUp;
  const bool fits = lambda <= kLargestLambda && std::exp(lambda) * delta * (1 - share) * kUp + rest <= delta;
  return {epsilon, lambda, rest, fits};
}

Gap first_that_fits(const Spending& spending, const Spending& ideal, double delta, const IdealBounds& ideal_epsilon) {
  // A smaller share of delta for the ideal release makes its epsilon larger and leaves more for the rest.
  for (double share : {std::min(likely_share(spending, delta), 0.4), 0.5, 0.9}) {
    const Gap gap = gap_at(spending, delta, share, ideal_epsilon(ideal, delta * (1 - share)).upper);
    if (gap.fits || !(gap.epsilon < kLargestEpsilon)) return gap;
  }
  return {kInfinity, 0, 0};
}

double upper_of(const Gap& gap) { return gap.fits ? (gap.epsilon + 2 * gap.lambda) * kUp : kInfinity; }

// What the gap turns an ideal (epsilon - 2 lambda, d) into. Below 0 both directions of the ideal release say d through the other:
// H_(e^-s)(P, Q) = 1 - e^-s + e^-s H_(e^s)(Q, P).
double shifted_delta(const Spending& ideal, double epsilon, const IdealBounds& ideal_delta) {
  if (epsilon >= 0) return ideal_delta(ideal, epsilon).upper;
  return (-std::expm1(epsilon) + std::exp(epsilon) * ideal_delta(ideal, -epsilon).upper) * kUp;
}

// (1 + e^epsilon) times what the tail and the failure may carry.
double rest_at(const Spending& spending, double epsilon, double beta) {
  const double rare = beta + spending.failure;
  return rare > 0 ? growth_at(epsilon) * rare * kUp : 0;
}

double delta_at(const Spending& spending, const Spending& ideal, double epsilon, double lambda, double beta, const IdealBounds& ideal_delta) {
  const double rest = rest_at(spending, epsilon + lambda, beta);
  return std::min(1.0, std::exp(lambda) * shifted_delta(ideal, epsilon - 2 * lambda, ideal_delta) * kUp + rest);
}

double delta_with(const Spending& spending, const Spending& ideal, double epsilon, double beta, const IdealBounds& ideal_delta) {
  const double lambda = ratio_bound(spending, std::log(beta)), twice = 2 * lambda;
  if (!(twice < kLargestEpsilon)) return 1;
  epsilon = std::min(epsilon, kLargestEpsilon);  // beyond, delta is no larger
  const double direct = delta_at(spending, ideal, epsilon, lambda, beta, ideal_delta);
  if (epsilon >= twice) return direct;
  // (twice, d)-DP is at most randomised response with that epsilon, or with probability d anything (Kairouz, Oh, Viswanath 2015).
  const double d = delta_at(spending, ideal, twice, lambda, beta, ideal_delta);
  const double response = -std::expm1(epsilon - twice) / (1 + std::exp(-twice));
  return std::min({1.0, direct, (d + (1 - d) * response) * kUp});
}

double lower_delta_with(const Spending& spending, const Spending& ideal, double epsilon, double beta, const IdealBounds& ideal_delta) {
  const double lambda = ratio_bound(spending, std::log(beta));
  if (!(lambda < kLargestEpsilon)) return 0;
  const double rest = rest_at(spending, epsilon + lambda, beta);
  return std::max(0.0, (ideal_delta(ideal, epsilon + 2 * lambda).lower - rest) * std::exp(-lambda) / kUp);
}

// Any tail is right; one that suits the delta that comes out is also tight.
double suitable_tail(const Spending& spending, const Spending& ideal, double epsilon, const IdealBounds& ideal_delta) {
  if (spending.gap_divergence == 0) return 0;
  const double growth = growth_at(std::min(epsilon, kLargestEpsilon));
  const double usual = kUsualTail / growth;
  const bool small = 2 * ratio_bound(spending, std::log(usual)) <= 1e-3;
  const double near = small ? 1 : ideal_delta(ideal, epsilon).upper;
  return small ? usual : std::max(kTailShare * near / growth, 1e-300);
}

}  // namespace

Interval with_gap_epsilon(const Spending& spending, double delta, const IdealBounds& ideal_epsilon) {
  if (!spending.has_gap()) return ideal_epsilon(spending, delta);
  const Spending ideal = without_gap(spending);
  const Gap gap = first_that_fits(spending, ideal, delta, ideal_epsilon);
  if (!gap.fits) return {0, kInfinity};
  const double more = (delta * std::exp(gap.lambda) + gap.rest) * kUp;
  const double upper = upper_of(gap);
  if (!(more < 1)) return {0, upper};
  return {std::clamp(ideal_epsilon(ideal, more).lower - 2 * gap.lambda, 0.0, upper), upper};
}

double with_gap_epsilon_upper(const Spending& spending, double delta, const IdealBounds& ideal_epsilon) {
  if (!spending.has_gap()) return ideal_epsilon(spending, delta).upper;
  return upper_of(first_that_fits(spending, without_gap(spending), delta, ideal_epsilon));
}

Interval with_gap_delta(const Spending& spending, double epsilon, const IdealBounds& ideal_delta) {
  if (!spending.has_gap()) return ideal_delta(spending, epsilon);
  const Spending ideal = without_gap(spending);
  if (epsilon == kInfinity) {  // what is exposed whole; the gap's ratio changes nothing there
    const Interval exposed = ideal_delta(ideal, epsilon);
    return {std::max(0.0, exposed.lower - spending.failure), std::min(1.0, (exposed.upper + spending.failure) * kUp)};
  }
  double beta = suitable_tail(spending, ideal, epsilon, ideal_delta);
  double upper = delta_with(spending, ideal, epsilon, beta, ideal_delta);
  if (beta > 0 && upper < 1e4 * kUsualTail) {
    beta = std::max(kTailShare * std::min(upper, ideal_delta(ideal, epsilon).upper) / growth_at(std::min(epsilon, kLargestEpsilon)), 1e-300);
    upper = std::min(upper, delta_with(spending, ideal, epsilon, beta, ideal_delta));
  }
  return {std::min(upper, lower_delta_with(spending, ideal, epsilon, beta, ideal_delta)), upper};
}

double with_gap_delta_upper(const Spending& spending, double epsilon, const IdealBounds& ideal_delta) {
  if (!spending.has_gap()) return ideal_delta(spending, epsilon).upper;
  if (epsilon == kInfinity) return with_gap_delta(spending, epsilon, ideal_delta).upper;
  const Spending ideal = without_gap(spending);
  return delta_with(spending, ideal, epsilon, suitable_tail(spending, ideal, epsilon, ideal_delta), ideal_delta);
}

}  // namespace hushgrad
