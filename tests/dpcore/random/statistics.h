// Tail probabilities for statistical tests, each computed the long way. A test that asks for a p-value above
// kFalseAlarm fails on a correct program once in a million runs.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

namespace hushgrad::testing {

inline constexpr double kFalseAlarm = 1e-6;
/// |z| of a standard normal that is passed with probability kFalseAlarm.
inline constexpr double kNormalLimit = 4.892;

inline long double normal_cdf(long double x) { return 0.5L * std::erfc(-x / std::sqrt(2.0L)); }

/// P(a <= Z < b), without the cancellation of a plain difference in the upper tail.
inline long double normal_mass(long double a, long double b) {
  return a > 0 ? normal_cdf(-a) - normal_cdf(-b) : normal_cdf(b) - normal_cdf(a);
}

/// P(Gamma(shape, 1) > x), the regularised upper incomplete gamma function: series below the mean, Lentz's
/// continued fraction above it (DLMF 8.11.4 and 8.9.2).
inline long double gamma_tail(long double shape, long double x) {
  if (x <= 0) return 1;
  const long double front = std::exp(shape * std::log(x) - x - std::lgamma(shape));
  if (x < shape + 1) {
    long double term = 1 / shape, sum = term;
    for (long double k = shape + 1; term > sum * 1e-18L; ++k) sum += term *= x / k;
    return 1 - front * sum;
  }
  long double b = x + 1 - shape, c = 1e300L, d = 1 / b, h = d;
  for (int i = 1; i < 100000; ++i) {
    const long double a = -i * (i - shape);
    b += 2;
    d = 1 / (a * d + b);
    c = b + a / c;
    h *= d * c;
    if (std::fabs(d * c - 1) < 1e-18L) break;
  }
  return front * h;
}

/// p-value of a chi-square goodness-of-fit test. Neighbouring cells are joined until each expects at least
/// ten.
inline double chi_square_p(std::span<const std::int64_t> counts, std::span<const long double> masses,
                           std::int64_t samples) {
  long double statistic = 0, observed = 0, expected = 0, total_expected = 0, total_observed = 0;
  int cells = 0;
  const auto close = [&](long double o, long double e) {
    statistic += (o - e) * (o - e) / e;
    ++cells;
  };
  for (std::size_t i = 0; i < counts.size(); ++i) {
    observed += static_cast<long double>(counts[i]);
    expected += masses[i] * static_cast<long double>(samples);
    if (expected < 10) continue;
    total_observed += observed;
    total_expected += expected;
    close(observed, expected);
    observed = expected = 0;
  }
  // Everything that is in no cell: what was left over and what lies outside the table.
  const auto n = static_cast<long double>(samples);
  if (n - total_expected >= 10) {
    close(n - total_observed, n - total_expected);
  } else if (n - total_observed > 60) {
    return 0;  // at most ten expected, more than sixty seen
  }
  return static_cast<double>(gamma_tail((cells - 1) / 2.0L, statistic / 2));
}

/// min(P(X <= seen), P(X >= seen)) for X ~ Poisson(mean).
inline double poisson_p(std::int64_t seen, double mean) {
  const double at_least =
      seen == 0 ? 1.0 : 1.0 - static_cast<double>(gamma_tail(static_cast<long double>(seen), mean));
  const double at_most = static_cast<double>(gamma_tail(static_cast<long double>(seen) + 1, mean));
  return std::min(at_least, at_most);
}

/// Largest distance between the empirical distribution of sorted samples and cdf, times sqrt(n). Passes 2.7
/// with probability below kFalseAlarm (Massart 1990: 2 exp(-2 x^2)).
inline constexpr double kKolmogorovLimit = 2.7;
template <typename Cdf>
double kolmogorov(std::span<const double> sorted, Cdf&& cdf) {
  const auto n = static_cast<double>(sorted.size());
  double worst = 0;
  for (std::size_t i = 0; i < sorted.size(); ++i) {
    const double f = cdf(sorted[i]);
    worst = std::max({worst, static_cast<double>(i + 1) / n - f, f - static_cast<double>(i) / n});
  }
  return worst * std::sqrt(n);
}

/// Sample correlation times sqrt(n): standard normal for independent columns.
template <typename A, typename B>
double correlation_z(std::size_t n, A&& a, B&& b) {
  long double ab = 0, aa = 0, bb = 0, sa = 0, sb = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const long double x = a(i), y = b(i);
    sa += x, sb += y, ab += x * y, aa += x * x, bb += y * y;
  }
  const auto m = static_cast<long double>(n);
  const long double cov = ab / m - sa / m * sb / m;
  return static_cast<double>(cov / std::sqrt((aa / m - sa / m * sa / m) * (bb / m - sb / m * sb / m)) *
                             std::sqrt(m));
}

}  // namespace hushgrad::testing
