#include "accounting/accountants/gaussian.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "accounting/accountants/closed_form.h"
#include "accounting/accountants/quadrature.h"

namespace hushgrad {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kUlp = std::numeric_limits<double>::epsilon();
constexpr double kLogSqrt2Pi = 0.91893853320467274178;

// Integral of exp(-t u - u^2 / 2) (1 - exp(-mu u)) over u >= start, divided by exp(-t start - start^2 / 2).
// The panels start at the scale of the fastest factor and grow with the distance, so ten points each are exact to
// rounding.
double tail_integral(double t, double mu, double start) {
  const double v = t + start;
  const auto fades = [v](double u) { return v > 0 ? v * u + u * u / 2 > 50 : v + u > 10; };
  double sum = 0, from = 0;
  double width = 0.5 / (1 + std::abs(v) + mu);
  while (std::isfinite(v) && !fades(from)) {
    for (const auto& node : quadrature::kGauss10) {
      const double u = from + node.at * width;
      sum += width * node.weight * std::exp(-v * u - u * u / 2) * -std::expm1(-mu * (start + u));
    }
    from += width;
    width = std::min(1.5 * width, 1 / (1 + std::abs(v + from)));
  }
  return sum;
}

// Shares of 1 - e^epsilon (1 - q) relative to q that its rounding leaves little of.
constexpr double kNextToOne = 1e-14;

// Somewhere in [0, bound].
LogDelta below_all(double bound) { return {std::log(bound) - 800, 800}; }

// Of |d log delta / d epsilon| of a Gaussian: e^epsilon P(Z > t + mu) / delta, about (t + mu) / mu far out and 1.25 / mu at t = 0.
double slope_bound(double mu, double epsilon) { return 3 + (std::max(epsilon, 0.0) / mu + 1.3) / mu; }

}  // namespace

LogDelta gaussian_log_delta(double mu, double epsilon) {
  const double t = epsilon / mu - mu / 2;
  // Left of -11 the Gaussian has no mass that a double could see.
  const double start = std::max(0.0, -11 - t);
  const double v = t + start;
  const double value = -v * v / 2 - kLogSqrt2Pi + std::log(tail_integral(t, mu, start));
  // t carries the rounding of its two terms into exp(-t^2 / 2).
  const double t_error = kUlp * (std::abs(epsilon) / mu + mu);
  const double error = 1e-13 + 2 * kUlp * v * v + (std::max(v, 0.0) + 1) * t_error;
  return {std::min(value, 0.0), error};
}

LogDelta sampled_gaussian_log_delta(double sampling_probability, double noise_multiplier, double epsilon,
                                    Direction direction) {
  const double q = sampling_probability, mu = 1 / noise_multiplier;
  if (q >= 1) return gaussian_log_delta(mu, epsilon);
  if (direction == Direction::remove) {
    // The sampled density is at least 1 - q times the other: below that ratio the whole event counts.
    const double odds = std::expm1(epsilon) / q;
    if (odds <= -1) return {std::log(-std::expm1(epsilon)), 4 * kUlp};
    const double inner = epsilon < 30 ? std::log1p(odds)
                                      : epsilon - std::log(q) + std::log1p(-(1 - q) * std::exp(-epsilon));
    LogDelta log_delta = gaussian_log_delta(mu, inner);
    // 1 + odds loses digits where odds is near -1.
    const double lost = epsilon < 30 ? 4 * kUlp * (std::abs(inner) + std::abs(odds) / (1 + odds)) : 4 * kUlp * inner;
    log_delta.error += lost * slope_bound(mu, inner) + 4 * kUlp * (1 + std::abs(std::log(q)));
    log_delta.value += std::log(q);
    return log_delta;
  }
  // Without the record no outcome is more than 1 / (1 - q) times as likely.
  if (epsilon > -std::log1p(-q) * (1 + 8 * kUlp)) return {-kInfinity, 0};
  const double factor = q - std::expm1(epsilon) * (1 - q);  // 1 - e^epsilon (1 - q)
  const double taken = std::expm1(epsilon) / q * (1 - q);   // of 1, in factor / q
  // delta is below the factor; where that is next to its rounding nothing else is known.
  if (!(taken < 1 - kNextToOne)) return below_all(q * 2 * kNextToOne);
  const double inner = epsilon - std::log1p(-taken);
  LogDelta log_delta = gaussian_log_delta(mu, inner);
  const double lost = 4 * kUlp * (std::abs(epsilon) + std::abs(inner) + std::abs(taken) / (1 - taken));
  log_delta.error += lost * slope_bound(mu, inner) + 4 * kUlp * (1 + std::abs(std::log(factor)) + q / factor);
  log_delta.value += std::log(factor);
  return log_delta;
}

Interval gaussian_delta(double mu_squared, double epsilon) {
  if (epsilon == kInfinity) return {0, 0};
  const LogDelta log_delta = gaussian_log_delta(std::sqrt(mu_squared), epsilon);
  return {lower_end(log_delta), std::max(upper_end(log_delta), std::numeric_limits<double>::min())};
}

Interval gaussian_epsilon(double mu_squared, double delta) {
  const double mu = std::sqrt(mu_squared);
  return solve_epsilon([&](double e) { return gaussian_log_delta(mu, e); }, gaussian_guess(mu, delta), delta);
}

Interval sampled_gaussian_delta(double sampling_probability, double noise_multiplier, double epsilon) {
  if (epsilon == kInfinity) return {0, 0};
  const auto at = [&](Direction direction) {
    return sampled_gaussian_log_delta(sampling_probability, noise_multiplier, epsilon, direction);
  };
  const LogDelta remove = at(Direction::remove), add = at(Direction::add);
  return {std::max(lower_end(remove), lower_end(add)),
          std::max({upper_end(remove), upper_end(add), std::numeric_limits<double>::min()})};
}

Interval sampled_gaussian_epsilon(double sampling_probability, double noise_multiplier, double delta) {
  Interval worse{0, 0};
  for (Direction direction : {Direction::remove, Direction::add}) {
    const auto at = [&](double e) {
      return sampled_gaussian_log_delta(sampling_probability, noise_multiplier, e, direction);
    };
    // Sampling multiplies e^epsilon - 1 by its probability.
    const double unsampled = gaussian_guess(1 / noise_multiplier, std::min(1.0, delta / sampling_probability));
    const double guess = unsampled < 30 ? std::log1p(sampling_probability * std::expm1(unsampled))
                                        : unsampled + std::log(sampling_probability);
    const double limit = -std::log1p(-sampling_probability);
    const Interval one = solve_epsilon(at, direction == Direction::add ? std::min(guess, limit) : guess, delta);
    worse = {std::max(worse.lower, one.lower), std::max(worse.upper, one.upper)};
  }
  return worse;
}

}  // namespace hushgrad
