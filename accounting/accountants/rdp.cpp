#include "accounting/accountants/rdp.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "accounting/accountants/gap.h"
#include "accounting/accountants/loss.h"
#include "accounting/accountants/quadrature.h"

namespace hushgrad {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kLogSqrt2Pi = 0.91893853320467274178;
// Far above the rounding of the sums below (all terms are positive), far below anything that matters.
constexpr double kSlack = 1 + 1e-11;

// log(exp(a) + exp(b))
double log_add(double a, double b) {
  const double high = std::max(a, b);
  return high == -kInfinity ? high : high + std::log1p(std::exp(std::min(a, b) - high));
}

double log_expm1(double x) { return x > 40 ? x : std::log(std::expm1(x)); }

// Both return log(E[Y^order] - 1), where Y is the likelihood ratio of one step under the distribution without the
// sample. Subtracting 1 before anything is rounded keeps small divergences relatively accurate.

// E[Y^n] = sum over k of C(n, k) q^k (1 - q)^(n-k) exp(k (k - 1) / (2 s^2)); the weights alone add up to 1.
double log_excess_integer(double q, double s, int order) {
  double sum = -kInfinity;
  double log_choose = std::log(static_cast<double>(order));  // C(n, 1)
  for (int k = 2; k <= order; ++k) {
    log_choose += std::log(static_cast<double>(order - k + 1)) - std::log(static_cast<double>(k));
    const double exponent = 0.5 * k * (k - 1.0) / (s * s);
    const double log_rest = k == order ? 0 : (order - k) * std::log1p(-q);
    sum = log_add(sum, log_choose + k * std::log(q) + log_rest + log_expm1(exponent));
  }
  return sum;
}

// (1 + y)^order - 1 - order * y for y = exp(loss) - 1, as a logarithm; positive by Bernoulli's inequality.
double log_convex_part(double loss, double order) {
  if (loss > 40) return order * loss + std::log1p(-order * std::exp((1 - order) * loss));
  const double y = std::expm1(loss);
  if (std::abs(y) < 1e-3 / order) {
    const double series = 1 + y * (order - 2) / 3 * (1 + y * (order - 3) / 4 * (1 + y * (order - 4) / 5));
    return std::log(order * (order - 1) / 2) + 2 * std::log(std::abs(y)) + std::log(series);
  }
  if (order * loss > 40) return order * loss + std::log1p(-(1 + order * y) * std::exp(-order * loss));
  return std::log(std::expm1(order * loss) - order * y);
}

// E[Y^order - 1 - order (Y - 1)] by quadrature. Y^order <= 2^order (Y0^order + Y1^order) splits the integrand into a
// bump at 0 and one at `order`, so everything further than `reach` deviations from both is below e^-80 of the result.
double log_excess_fractional(double q, double s, double order) {
  const SampledLoss loss(q, s);
  const double reach = s * std::sqrt(2 * (80 + order));
  const double strip = 3.14159265358979 * loss.variance();
  std::vector<double> terms;
  const auto integrate = [&](double from, double to) {
    while (from < to) {
      // Close to the bend the loss is not a polynomial at the scale of s: shorter panels.
      const double distance = std::hypot(strip, loss.bend() - from);
      const double width = std::min({0.5 * s, distance / 3, to - from});
      for (const auto& node : quadrature::kGauss10) {
        const double x = from + node.at * width;
        const double value = log_convex_part(loss(x), order) - x * x / (2 * loss.variance());
        terms.push_back(value + std::log(node.weight * width / s));
      }
      from += std::max(width, 1e-12 * s);
    }
  };
  integrate(-reach, std::min(reach, order - reach));
  integrate(std::max(-reach, std::min(reach, order - reach)), reach);
  integrate(std::max(reach, order - reach), order + reach);
  const double largest = *std::max_element(terms.begin(), terms.end());
  double sum = 0;
  for (double term : terms) sum += std::exp(term - largest);
  return largest + std::log(sum) - kLogSqrt2Pi;
}

// The mean of the truncated negative binomial with that shape and success probability (Papernot and Steinke 2022,
// Definition 1).
double runs_mean(double shape, double success) {
  const double log_success = std::log(success);
  if (shape * -log_success < 1e-8) return (1 / success - 1) / -log_success;
  return shape * (1 - success) / (success * -std::expm1(shape * log_success));
}

// The largest success probability, rounded down, whose mean is at least `mean`.
double success_for(double shape, double mean) {
  double low = -700, high = 0;  // logarithms
  for (int i = 0; i < 200; ++i) {
    const double middle = (low + high) / 2;
    (runs_mean(shape, std::exp(middle)) >= mean ? low : high) = middle;
  }
  return std::exp(low) * (1 - 1e-9);
}

// Pairs leave out outcomes beyond their reach, for which delta pays. Where it cannot, those that a Gaussian release dominates
// count as that, and leave out nothing.
enum class Pairs { amplified, as_gaussian };

bool counts_as_gaussian(const PairSteps& step, Pairs pairs) {
  return pairs == Pairs::as_gaussian && step.pair->gaussian_mu_squared() < kInfinity;
}

std::vector<double> spending_rdp(const Spending& spending, std::span<const double> orders, Pairs pairs);
double left_out(const Spending& spending, Pairs pairs);

// delta of a spending at any number of epsilons: its divergences are found once.
class RdpDelta {
 public:
  RdpDelta(const Spending& spending, std::span<const double> orders) : orders_(orders) {
    add(spending, Pairs::amplified);
    if (ways_[0].left_out > 0) add(spending, Pairs::as_gaussian);
  }

  double at(double epsilon) const {
    double best = 1;
    for (const Way& way : ways_) best = std::min(best, at(way, epsilon));
    return best;
  }

 private:
  struct Way {
    std::vector<double> divergences;
    double left_out;
  };

  void add(const Spending& spending, Pairs pairs) {
    ways_.push_back({spending_rdp(spending, orders_, pairs), left_out(spending, pairs)});
  }

  double at(const Way& way, double epsilon) const {
    double best = 0;
    for (std::size_t i = 0; i < orders_.size(); ++i) {
      const double order = orders_[i], rdp = way.divergences[i];
      if (!(rdp < kInfinity)) continue;
      const double log_delta = (order - 1) * (rdp - epsilon + std::log1p(-1 / order)) - std::log(order);
      best = std::min(best, log_delta + 1e-14 * ((order - 1) * (rdp + epsilon) + 10));
    }
    return std::min(1.0, std::max(std::exp(best), std::numeric_limits<double>::min()) + way.left_out);
  }

  std::span<const double> orders_;
  std::vector<Way> ways_;
};

// Papernot and Steinke 2022, Theorem 2 (negative binomial) and Theorem 6 (Poisson).
std::vector<double> selection_rdp(const Selection& selection, std::span<const double> orders, Pairs pairs) {
  const std::vector<double> run = spending_rdp(*selection.run, orders, pairs);
  const double log_mean = std::log(selection.mean);
  std::vector<double> best(orders.size(), kInfinity);
  double constant = kInfinity;
  if (selection.shape < kInfinity) {
    const double log_success = std::log(success_for(selection.shape, selection.mean));
    for (std::size_t j = 0; j < orders.size(); ++j) {
      const double order = orders[j];
      constant = std::min(constant, (1 + selection.shape) * ((1 - 1 / order) * run[j] - log_success / order));
    }
  }
  std::optional<RdpDelta> delta;
  if (!(selection.shape < kInfinity)) delta.emplace(*selection.run, orders);
  for (std::size_t i = 0; i < orders.size(); ++i) {
    const double extra = delta ? selection.mean * delta->at(std::log1p(1 / (orders[i] - 1)) * (1 - 1e-12)) : constant;
    best[i] = run[i] + extra + log_mean / (orders[i] - 1);
  }
  // A divergence grows with its order, so that of a larger one is a bound too.
  for (std::size_t i = orders.size() - 1; i-- > 0;) {
    if (orders[i] <= orders[i + 1]) best[i] = std::min(best[i], best[i + 1]);
  }
  return best;
}

std::vector<double> spending_rdp(const Spending& spending, std::span<const double> orders, Pairs pairs) {
  std::vector<double> total(orders.size());
  for (std::size_t i = 0; i < orders.size(); ++i) {
    total[i] = orders[i] / 2 * spending.mu_squared;
    for (const SampledGaussian& step : spending.sampled) {
      total[i] += step.count * sampled_gaussian_rdp(step.sampling_probability, step.noise_multiplier, orders[i]);
    }
    for (const PairSteps& step : spending.pairs) {
      const double gaussian = orders[i] / 2 * step.pair->gaussian_mu_squared();
      const bool as_gaussian = counts_as_gaussian(step, pairs);
      total[i] += step.count * (as_gaussian ? gaussian : std::min(gaussian, pair_rdp(*step.pair, orders[i]).divergence));
    }
  }
  for (const Selection& selection : spending.selections) {
    const std::vector<double> more = selection_rdp(selection, orders, pairs);
    for (std::size_t i = 0; i < orders.size(); ++i) total[i] += selection.count * more[i];
  }
  for (double& value : total) value *= kSlack;
  return total;
}

// The probability that the divergences above leave out.
double left_out(const Spending& spending, Pairs pairs) {
  double total = 0;
  for (const PairSteps& step : spending.pairs) {
    if (!counts_as_gaussian(step, pairs)) total += step.count * pair_rdp(*step.pair, 2).rest;
  }
  for (const Selection& selection : spending.selections) {
    total += selection.count * selection.mean * left_out(*selection.run, pairs) * 4;
  }
  return total;
}

Interval exposed_epsilon(const Spending& spending, double delta) {
  const bool known = !spending.rounded_up && -std::expm1(spending.log_unexposed) > delta;
  return {known ? kInfinity : 0, kInfinity};
}

}  // namespace

double sampled_gaussian_rdp(double sampling_probability, double noise_multiplier, double order) {
  const double q = sampling_probability, s = noise_multiplier;
  if (q == 0) return 0;
  if (s == 0) return kInfinity;
  if (q == 1) return kSlack * order / (2 * s * s);
  const bool integer = order == std::floor(order) && order <= 10000;
  // log E[Y^order] is convex in the order and 0 at order 1 (Hoelder), so a chord up to the next integer is a bound
  // where a quadrature would need too many panels.
  if (!integer && (s < 1e-3 || order > 10000)) {
    const double low = std::floor(order), high = low + 1;
    if (high > 10000) return kSlack * order / (2 * s * s);
    const double at_low = low > 1 ? (low - 1) * sampled_gaussian_rdp(q, s, low) : 0;
    const double at_high = (high - 1) * sampled_gaussian_rdp(q, s, high);
    return kSlack * (at_low + (order - low) * (at_high - at_low)) / (order - 1);
  }
  const double log_excess = integer ? log_excess_integer(q, s, static_cast<int>(order))
                                    : log_excess_fractional(q, s, order);
  const double log_moment = log_excess > 40 ? log_excess : std::log1p(std::exp(log_excess));
  // Never worse than without sampling.
  return std::min(kSlack * log_moment / (order - 1), kSlack * order / (2 * s * s));
}

std::span<const double> default_rdp_orders() {
  static const std::vector<double> orders = [] {
    std::vector<double> list{1.001, 1.003, 1.01, 1.02, 1.05};
    for (int i = 11; i < 110; ++i) list.push_back(i / 10.0);
    for (int i = 11; i < 64; ++i) list.push_back(i);
    for (int i = 64; i <= 1024; i += i / 8) list.push_back(i);
    return list;
  }();
  return orders;
}

namespace {

double epsilon_with(Pairs pairs, const Spending& spending, double delta, std::span<const double> orders) {
  double best = kInfinity;
  delta -= left_out(spending, pairs);
  if (!(delta > 0)) return kInfinity;
  const std::vector<double> divergences = spending_rdp(spending, orders, pairs);
  for (std::size_t i = 0; i < orders.size(); ++i) {
    const double order = orders[i], rdp = divergences[i];
    const double epsilon = rdp + std::log1p(-1 / order) - (std::log(delta) + std::log(order)) / (order - 1);
    // The converted value is exact up to a few roundings of its terms.
    best = std::min(best, epsilon + 1e-14 * (std::abs(rdp) - std::log(delta) / (order - 1) + 1));
  }
  return std::max(best, 0.0);
}

}  // namespace

double rdp_epsilon(const Spending& spending, double delta, std::span<const double> orders) {
  const double amplified = epsilon_with(Pairs::amplified, spending, delta, orders);
  if (!(left_out(spending, Pairs::amplified) > 0)) return amplified;
  return std::min(amplified, epsilon_with(Pairs::as_gaussian, spending, delta, orders));
}

double rdp_delta(const Spending& spending, double epsilon, std::span<const double> orders) {
  return RdpDelta(spending, orders).at(epsilon);
}

Interval RdpAccountant::epsilon(const Event& event, double delta, Adjacency adjacency) const {
  const Spending spending = flatten(event, adjacency);
  const auto ideal = [](const Spending& part, double at) -> Interval {
    if (part.nothing()) return {0, 0};
    if (part.log_unexposed < 0) return exposed_epsilon(part, at);
    return {0, rdp_epsilon(part, at)};
  };
  return with_gap_epsilon(spending, delta, ideal);
}

Interval RdpAccountant::delta(const Event& event, double epsilon, Adjacency adjacency) const {
  const Spending spending = flatten(event, adjacency);
  const auto ideal = [](const Spending& part, double at) -> Interval {
    if (part.nothing()) return {0, 0};
    if (part.log_unexposed < 0) return {part.rounded_up ? 0 : -std::expm1(part.log_unexposed), 1};
    if (at == kInfinity) return {0, 0};
    return {0, rdp_delta(part, at)};
  };
  return with_gap_delta(spending, epsilon, ideal);
}

}  // namespace hushgrad
