#include "accounting/accountants/undershoot.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "accounting/accountants/loss.h"
#include "accounting/accountants/normal.h"

namespace hushgrad {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
// The closed forms below round by less, relative to their largest term.
constexpr double kRounding = 1e-13;

// E_Q[u^2; x <= to], u = q (e^g - 1): the density times e^g and e^(2g) is that of a normal around 1 and around 2.
double square_below(double q, double s, double to) {
  const double all = std::expm1(1 / (s * s));
  const double twice = std::exp(1 / (s * s)) * normal_tail((2 - to) / s), once = normal_tail((1 - to) / s), none = normal_tail(-to / s);
  const double part = twice - 2 * once + none + kRounding * (twice + 2 * once + none);
  return q * q * (part < all ? part : all * (1 + kRounding));
}

}  // namespace

double log_undershoot_moment(const Step& step, double tilt) {
  if (step.pair) return kInfinity;
  const double q = step.q, s = step.s;
  if (q == 1) return tilt * (tilt + 1) / (2 * s * s) * (1 + kRounding);
  const double curvature = tilt * (tilt + 1) / 2 * std::exp(-(tilt + 2) * std::log1p(-q));
  if (!(curvature < kInfinity)) return kInfinity;
  // Where both bounds of the integrand meet.
  const double from = SampledLoss(q, s).inverse(std::log1p(tilt / curvature));
  const double above = q * normal_between((from - 1) / s, from / s) + q * kRounding * normal_tail((from - 1) / s);
  return std::log1p(curvature * square_below(q, s, from) + tilt * above) * (1 + kRounding);
}

Undershoot undershoot(const std::vector<Step>& steps, double log_probability) {
  const auto depth_at = [&](double log_tilt) {
    const double tilt = std::exp(log_tilt);
    double moment = -log_probability;
    for (const Step& step : steps) moment += step.count * log_undershoot_moment(step, tilt);
    return moment / tilt;
  };
  // Falls and rises once, up to where the two bounds of an integrand change places.
  constexpr double kGolden = 0.6180339887498949;
  double low = std::log(1e-4), high = std::log(1e12);
  double a = high - kGolden * (high - low), b = low + kGolden * (high - low), at_a = depth_at(a), at_b = depth_at(b);
  for (int i = 0; i < 14; ++i) {
    if (!(at_b < at_a)) {
      high = b;
      b = a;
      at_b = at_a;
      a = high - kGolden * (high - low);
      at_a = depth_at(a);
    } else {
      low = a;
      a = b;
      at_a = at_b;
      b = low + kGolden * (high - low);
      at_b = depth_at(b);
    }
  }
  return at_b < at_a ? Undershoot{at_b, std::exp(b)} : Undershoot{at_a, std::exp(a)};
}

}  // namespace hushgrad
