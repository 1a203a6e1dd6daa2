#include "accounting/accountants/discrete_gaussian.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace hushgrad {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kUlp = std::numeric_limits<double>::epsilon();
constexpr double kLogSqrt2Pi = 0.91893853320467274178;
constexpr double kPi = 3.14159265358979323846;
constexpr double kLongestSum = 400;
// So many deviations above, less is left than a double can hold.
constexpr double kNothing = 39;

// Where the losses pass epsilon: the first integer above, and how far the loss there is above.
struct Start {
  double t;           // of the first integer, in deviations from `shift`
  double rise;        // its loss minus epsilon
  double rise_error;
};

Start start_of(double s, double shift, double epsilon) {
  const double crossing = shift / 2 + epsilon * (s * s / shift), slope = shift / (s * s);
  // An integer that the crossing may pass by rounding alone counts: it can weigh far more than all that follow.
  const double first = std::floor(crossing * (1 - 4 * kUlp)) + 1;
  return {(first - shift) / s, std::max(0.0, first - crossing) * slope, 8 * kUlp * crossing * slope};
}

LogDelta by_sum(double s, double shift, const Start& start) {
  const double slope = shift / (s * s), first = start.t * s;  // relative to `shift`
  double sum = 0, weights = 0, rest = kInfinity;
  for (double j = 0;; ++j) {
    const double weight = std::exp(-(2 * first + j) * j / (2 * s * s));
    weights += weight;
    sum += weight * -std::expm1(-start.rise - j * slope);
    // From here on the weights fall at least geometrically.
    const double ratio = std::exp(-(first + j + 0.5) / (s * s));
    if (ratio < 1) rest = weight * ratio / (1 - ratio);
    if (rest < 1e-15 * sum) break;
  }
  // Whether the first integer counts at all may be decided in the last digit; all others are above by their distance from it.
  const double error = start.rise_error * weights + rest, others = sum + std::expm1(-start.rise);
  const double high = std::log(sum + error);
  const double low = std::log(std::max({sum - error, others - start.rise_error * (weights - 1) - rest, 1e-300}));
  const double value = -start.t * start.t / 2 - discrete_gaussian_log_norm(s) + (high + low) / 2;
  return {value, 1e-12 + (high - low) / 2 + 4 * kUlp * start.t * start.t};
}

double log_normal(double t) { return -t * t / 2 - kLogSqrt2Pi; }

// Phi(-t) / phi(t), relatively right to 3e-8 beyond 30 and to rounding below.
double mills_ratio(double t) {
  if (t > 30) return (1 - 1 / (t * t) + 3 / (t * t * t * t)) / t;
  return std::erfc(t * 0.70710678118654752440) / 2 * std::exp(-log_normal(t));
}

// Integral of |He4(z)| exp(-z^2 / 2) over z >= from, divided by exp(-at^2 / 2). He4 is positive above 2.334; in all it is at most
// sqrt(24) sqrt(2 pi) (Cauchy-Schwarz).
double fourth_variation(double from, double log_ratio) {
  if (from >= 2.4) return from * (from * from - 3) * std::exp(log_ratio - from * from / 2);
  return 12.3 * std::exp(log_ratio);
}

// With g the density difference above the crossing, the sum from the first integer m on is
//   integral of g from m + g(m) / 2 - g'(m) / 12, up to the integral of |g''''| / 384.
// Everything here is divided by phi(t).
LogDelta by_integral(double s, double shift, const Start& start) {
  const double t = start.t, mu = shift / s, z = t + mu;
  const double rise = -std::expm1(-start.rise), fall = std::exp(-start.rise);
  const LogDelta gaussian = gaussian_log_delta(mu, mu * (t + mu / 2));
  const double ratio = mills_ratio(t);
  const double integral = rise * ratio + fall * std::exp(gaussian.value - log_normal(t));
  const double value = integral + rise / (2 * s) - (mu * fall - t * rise) / (12 * s * s);
  const double remainder = (fourth_variation(t, t * t / 2) + fall * fourth_variation(z, z * z / 2)) / (384 * s * s * s * s);
  const double absolute = remainder + start.rise_error * (ratio + 1 / s) + (t > 30 ? 3e-8 : 1e-12) * rise * ratio;
  const double relative = absolute / value;
  if (!(relative < 0.5)) return {0, kInfinity};
  return {log_normal(t) + std::log(value), -std::log1p(-relative) + gaussian.error + 1e-12 + 8 * kUlp * t * t};
}

}  // namespace

double discrete_gaussian_log_norm(double s) {
  // By Poisson summation the sum is s sqrt(2 pi) (1 + 2 exp(-2 pi^2 s^2) + ...).
  if (s > 1) return std::log(s) + kLogSqrt2Pi + std::log1p(2 * std::exp(-2 * kPi * kPi * s * s));
  double sum = 1;
  for (double x = 1; x < 40 * s + 2; ++x) sum += 2 * std::exp(-x * x / (2 * s * s));
  return std::log(sum);
}

LogDelta discrete_gaussian_log_delta(double s, double shift, double epsilon) {
  const Start start = start_of(s, shift, epsilon);
  if (!(start.t < kNothing)) return {-kInfinity, 0};
  LogDelta log_delta = s < kLongestSum ? by_sum(s, shift, start) : by_integral(s, shift, start);
  log_delta.value = std::min(log_delta.value, 0.0);
  return log_delta;
}

}  // namespace hushgrad
