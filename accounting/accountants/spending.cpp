#include "accounting/accountants/spending.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <map>
#include <string>
#include <utility>

#include "accounting/accountants/pairs.h"
#include "dpcore/error.h"

namespace hushgrad {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
// Beyond these a step spends next to nothing; clamping keeps every intermediate a normal double.
constexpr double kLargestNoise = 1e9;
// Below, epsilon and what leads to it overflow.
constexpr double kSmallestNoise = 1e-140;
constexpr double kSmallestSampling = 1e-12;
// Less noise than this, relative to the distance, is charged as none at all where there is no closed form.
constexpr double kSmallestPairNoise = 0.02;
constexpr double kLargestPairNoise = 1e6;
constexpr double kSmallestAllocationNoise = 0.15;
constexpr double kSmallestMuSquared = 1e-300;  // below, rounding up is no longer a small part
constexpr double kMostOthers = 1e7;
constexpr std::int64_t kMostBins = std::int64_t{1} << 14;

double up(double value) { return std::nextafter(value, kInfinity); }

double product_up(double a, double b) {
  const double product = a * b;
  return std::fma(a, b, -product) == 0 ? product : up(product);
}

double sum_up(double a, double b) {
  const double sum = a + b;
  return sum - a == b && sum - b == a ? sum : up(sum);
}

double count_up(std::int64_t count) {
  const double nearest = static_cast<double>(count);
  return nearest < 0x1p63 && static_cast<std::int64_t>(nearest) < count ? up(nearest) : nearest;
}

// Of the logarithm of a tail: lgamma is right to a few units of rounding of its value, n log n.
double binomial_error(double n) { return 1e-12 + 2e-15 * n * (1 + std::log(n + 1)); }

class Flattener {
 public:
  Flattener(Adjacency adjacency, double group, bool in_batch = false)
      : adjacency_(adjacency), group_(group), in_batch_(in_batch) {}

  void add(const Event& event, double count) {
    if (count == 0) return;
    switch (event.kind()) {
      case EventKind::no_op: return;
      case EventKind::non_private: return add_exposure(1, count);
      case EventKind::self_composed:
        return add(event.inner(), product_up(count, count_up(event.count())));
      case EventKind::composed:
        for (const Event& part : event.events()) add(part, count);
        return;
      case EventKind::gaussian: return add_gaussian(event.noise_multiplier(), distance(), count);
      case EventKind::laplace: return add_laplace(1, event.noise_multiplier(), count);
      case EventKind::discrete_gaussian: return add_discrete_gaussian(event, count);
      case EventKind::mixture_of_gaussians: return add_mixture(event, count);
      case EventKind::adaptive_clipping:
        // The count's sum moves by 1/2 at most, so both are Gaussian releases of one batch (Andrew et al. 2021, Theorem 1).
        add_gaussian(event.noise_multiplier(), distance(), count);
        return add_gaussian(2 * event.number("count_noise_stddev"), distance(), count);
      case EventKind::poisson_sampled: return add_sampled(event, count);
      case EventKind::truncated_subsampled_gaussian: return add_truncated(event, count);
      case EventKind::sampled_without_replacement: return add_subset(event, count);
      case EventKind::shuffled_epoch: return add_shuffled(event, count);
      case EventKind::balls_in_bins: return add_balls(event, count);
      case EventKind::matrix_factorization: return add_matrix(event, count);
      case EventKind::tree_aggregation: return add_tree(event, count);
      case EventKind::group: return add_group(event, count);
      case EventKind::repeat_and_select: return add_selection(event, count);
      case EventKind::finite_precision: return add_finite_precision(event, count);
      case EventKind::unsupported: break;
    }
    throw Unsupported(message("[accounting] Expected events with a proven bound, received ", event.type_name(), " (",
                              event.reason(), "). Nothing can be claimed for this history."));
  }

  Spending take() {
    for (const auto& [key, count] : sampled_) {
      spending_.sampled.push_back({key.first, key.second, count});
    }
    for (auto& [key, steps] : pairs_) spending_.pairs.push_back(std::move(steps));
    return std::move(spending_);
  }

 private:
  // How far a plain sum moves between neighbours, in contributions of one record.
  double distance() const { return group_ * (adjacency_ == Adjacency::replace_one ? 2 : 1); }

  [[noreturn]] void refuse(const Event& event, const char* what) const {
    throw Unsupported(message("[accounting] Expected an event with a proven bound under ", adjacency_name(adjacency_),
                              group_ > 1 ? " for groups" : "", ", received ", event.type_name(), ": ", what));
  }

  void add_gaussian(double noise_multiplier, double moved, double count) {
    const double deviation = std::nextafter(noise_multiplier / moved, 0);
    const double s = moved == 1 ? noise_multiplier : deviation;
    const double mu = 1 / s;  // the square of s could overflow
    const double mu_squared = up(up(up(mu * mu)));
    if (mu_squared < kSmallestMuSquared) spending_.rounded_up = true;
    if (!(mu_squared < kInfinity)) return add_exposure(1, count);
    spending_.mu_squared = sum_up(spending_.mu_squared, product_up(mu_squared, count));
    if (!(spending_.mu_squared < kInfinity)) add_exposure(1, 1);
  }

  void expect_outside_batch(const Event& event) const {
    if (in_batch_) refuse(event, "it is about a whole training and cannot be a part of one batch.");
  }

  // Too little noise for a bound: as if there were none, but that is not known to be so.
  void add_unbounded(double probability, double count) {
    spending_.rounded_up = true;
    add_exposure(probability, count);
  }

  double capped(double noise) {
    if (noise > kLargestPairNoise) spending_.rounded_up = true;
    return std::min(noise, kLargestPairNoise);
  }

  void add_exposure(double probability, double count) {
    spending_.log_unexposed += count * std::log1p(-probability);
  }

  void add_pair(LossPairPointer pair, double count) {
    auto& steps = pairs_[pair->key()];
    if (!steps.pair) steps = {std::move(pair), 0};
    steps.count = sum_up(steps.count, count);
  }

  void add_laplace(double probability, double noise_multiplier, double count) {
    const double b = noise_multiplier / distance();
    if (!(b > kSmallestPairNoise)) return add_unbounded(probability, count);
    add_pair(laplace_pair(probability, capped(b)), count);
  }

  void add_discrete_gaussian(const Event& event, double count) {
    const double s = event.number("standard_deviation");
    const double shift = static_cast<double>(event.integer("sensitivity")) * distance();
    if (!(s > 0)) return add_exposure(1, count);
    if (s > 1e5 || shift > 1e9) refuse(event, "a standard_deviation above 1e5 is not supported. Scale the query down.");
    // The loss is at most that of a Gaussian of that multiplier, which a grid cannot follow.
    if (s / shift < kSmallestPairNoise) return add_unbounded(1, count);
    add_pair(discrete_gaussian_pair(s, static_cast<std::int64_t>(shift)), count);
  }

  void add_mixture(const Event& event, double count) {
    if (adjacency_ == Adjacency::replace_one || group_ > 1) {
      refuse(event, "it says what one record adds, not what replaces it. Ask about add_or_remove_one, one record.");
    }
    std::vector<double> shifts, probs;
    double total = 0, used = 0;
    for (double p : event.numbers("sampling_probs")) total += p;
    for (std::size_t i = 0; i < event.numbers("sensitivities").size(); ++i) {
      const double shift = event.numbers("sensitivities")[i], p = event.numbers("sampling_probs")[i] / total;
      if (p == 0) continue;
      if (shift > 0) used += p;
      shifts.push_back(shift);
      probs.push_back(p);
    }
    add_shifts(event.number("standard_deviation"), std::move(shifts), std::move(probs), std::min(used, 1.0), count);
  }

  void add_shifts(double s, std::vector<double> shifts, std::vector<double> probs, double used, double count) {
    if (used == 0) return;
    const double largest = *std::max_element(shifts.begin(), shifts.end());
    if (!(s / largest > kSmallestPairNoise)) return add_unbounded(used, count);
    if (probs.size() == 1) return add_gaussian(s, shifts[0], count);
    add_pair(gaussian_mixture_pair(s, std::move(shifts), std::move(probs)), count);
  }

  // What one batch releases, without what the neighbours are: that is the sampling's to say. Its gap is taken over.
  Spending of_one_batch(const Event& inner, double count) {
    Flattener flattener(Adjacency::add_or_remove_one, 1, true);
    flattener.add(inner, 1);
    Spending batch = flattener.take();
    add_gap(batch, count);
    spending_.rounded_up = spending_.rounded_up || batch.rounded_up;
    return batch;
  }

  // What one batch releases, as one Gaussian: its deviation in contributions of one record; 0 without noise.
  double batch_noise(const Event& event, const Event& inner, double count) {
    const Spending batch = of_one_batch(inner, count);
    if (batch.log_unexposed == -kInfinity) return 0;
    if (!batch.sampled.empty() || !batch.pairs.empty() || !batch.selections.empty() || batch.log_unexposed != 0) {
      refuse(event, "what it releases of a batch must be Gaussian noise on sums over the whole batch.");
    }
    return batch.mu_squared == 0 ? kInfinity : std::nextafter(1 / std::sqrt(up(batch.mu_squared)), 0);
  }

  void add_sampled(const Event& event, double count) {
    const double probability = event.sampling_probability();
    const Event& inner = event.inner();
    if (probability == 0) return;
    if (probability == 1) return add(inner, count);
    if (inner.kind() == EventKind::gaussian && inner.noise_multiplier() > 0) {
      return add_step(probability, inner.noise_multiplier(), count);
    }
    if (inner.kind() == EventKind::laplace) return add_sampled_laplace(event, count);
    const Spending batch = of_one_batch(inner, count);
    if (batch.pairs.empty() && batch.selections.empty()) {
      if (batch.sampled.empty() && batch.mu_squared == 0 && batch.log_unexposed == 0) return;
      if (batch.log_unexposed == -kInfinity) return add_exposure(group_probability(probability), count);
      if (batch.sampled.empty() && batch.log_unexposed == 0) {
        return add_step(probability, std::nextafter(1 / std::sqrt(up(batch.mu_squared)), 0), count);
      }
      // A Poisson sample of a Poisson sample is a Poisson sample.
      if (batch.sampled.size() == 1 && batch.sampled[0].count == 1 && batch.mu_squared == 0 && batch.log_unexposed == 0) {
        const SampledGaussian& step = batch.sampled[0];
        return add_step(product_up(probability, step.sampling_probability), step.noise_multiplier, count);
      }
    }
    throw Unsupported(message("[accounting] Expected PoissonSampledDpEvent over releases that use the whole batch, "
                              "received a composition that samples again, in ", inner.type_name(),
                              ". Record every step as its own PoissonSampledDpEvent."));
  }

  // One of a group's records is in the batch.
  double group_probability(double probability) const {
    return group_ == 1 ? probability : -std::expm1(group_ * std::log1p(-probability));
  }

  void add_sampled_laplace(const Event& event, double count) {
    if (adjacency_ == Adjacency::replace_one || group_ > 1) {
      refuse(event, "sampled Laplace noise is bounded for adding or removing one record.");
    }
    add_laplace(event.sampling_probability(), event.inner().noise_multiplier(), count);
  }

  void add_step(double probability, double noise_multiplier, double count) {
    if (!(noise_multiplier > 0)) return add_exposure(group_probability(probability), count);
    if (noise_multiplier < kSmallestNoise) return add_unbounded(group_probability(probability), count);
    if (probability < kSmallestSampling || noise_multiplier > kLargestNoise) spending_.rounded_up = true;
    probability = std::max(probability, kSmallestSampling);
    noise_multiplier = std::min(noise_multiplier, kLargestNoise);
    if (adjacency_ == Adjacency::replace_one) return add_substituted(probability, noise_multiplier, count);
    if (group_ > 1) return add_group_step(probability, noise_multiplier, count);
    double& total = sampled_[{probability, noise_multiplier}];
    total = sum_up(total, count);
  }

  void add_substituted(double probability, double noise_multiplier, double count) {
    if (group_ > 1) {
      throw Unsupported("[accounting] Expected groups under add_or_remove_one or zero_out, received replace_one of a "
                        "Poisson-sampled event. Ask about adding or removing the group.");
    }
    if (!(noise_multiplier > kSmallestPairNoise)) return add_unbounded(probability, count);
    add_pair(substituted_gaussian_pair(probability, noise_multiplier), count);
  }

  // Binomially many of the group's records are in the batch (Charles et al. 2024; Ganesh 2024).
  void add_group_step(double probability, double noise_multiplier, double count) {
    std::vector<double> shifts, probs;
    long double log_choose = 0;  // thousands of terms, of which a double would keep too few digits
    const long double log_in = std::log(static_cast<long double>(probability));
    const long double log_out = std::log1p(-static_cast<long double>(probability));
    for (double k = 0; k <= group_; ++k) {
      if (k > 0) log_choose += std::log(static_cast<long double>(group_ - k + 1)) - std::log(static_cast<long double>(k));
      const double p = static_cast<double>(std::exp(log_choose + k * log_in + (group_ - k) * log_out));
      if (p == 0) continue;
      shifts.push_back(k);
      probs.push_back(p);
    }
    add_shifts(noise_multiplier, std::move(shifts), std::move(probs), group_probability(probability), count);
  }

  // Whether more than the record's own batch is cut depends on the other records alone; so the pair is a mixture
  // (docs/accounting.md).
  void add_truncated(const Event& event, double count) {
    const double n = static_cast<double>(event.integer("dataset_size")), q = event.sampling_probability();
    const double size = static_cast<double>(event.integer("truncated_batch_size")), s = event.noise_multiplier();
    if (group_ > 1) refuse(event, "only one record at a time is bounded.");
    if (q == 0 || size == 0) return;
    const double others = n - 1;
    const bool replaced = adjacency_ == Adjacency::replace_one;
    if (others > kMostOthers && !(size > others * q)) {
      // Most batches are cut, and the sums that say how many would be long: as if every batch were, and no record lost.
      if (!(s > kSmallestPairNoise)) return add_unbounded(q, count);
      spending_.rounded_up = true;
      return add_pair(replaced || q >= 1 ? replaced_gaussian_pair(q, s / 2) : gaussian_mixture_pair(s, {0, 2}, {1 - q, q}), count);
    }
    const double cut = binomial_tail(others, q, size);
    if (cut < 1e-25) {
      spending_.failure = sum_up(spending_.failure, product_up(cut, count));
      return add_sampled(Event::poisson_sampled(q, Event::gaussian(s)), count);
    }
    if (!(s > kSmallestPairNoise)) return add_unbounded(q, count);
    // Given that at least `size` others were drawn, the record is drawn and kept with a probability of at most this.
    const double kept = std::min(q, binomial_tail(others + 1, q, size + 1) * size / ((others + 1) * cut) *
                                     (1 + 1e-9) * std::exp(2 * binomial_error(others + 1)));
    const auto whole = q == 1 ? gaussian_mixture_pair(s, {replaced ? 2.0 : 1.0}, {1})
                       : replaced ? substituted_gaussian_pair(q, s)
                                  : gaussian_mixture_pair(s, {0, 1}, {1 - q, q});
    const auto reduced = [&](double k) {
      return replaced || k >= 1 ? replaced_gaussian_pair(std::min(k, 1.0), s / 2) : gaussian_mixture_pair(s, {0, 2}, {1 - k, k});
    };
    // Where it is not known whether a batch is cut (rounding of the tail), the record counts as kept in a batch that is: that
    // dominates both cases.
    const double unsure = -std::expm1(-2 * binomial_error(others));
    add_pair(mixed_pair(std::min(cut, 1.0), whole, mixed_pair(unsure, reduced(kept), reduced(q))), count);
  }

  void add_subset(const Event& event, double count) {
    expect_outside_batch(event);
    if (adjacency_ == Adjacency::add_or_remove_one) {
      refuse(event, "its sizes are public. Ask about replace_one or zero_out.");
    }
    if (group_ > 1) refuse(event, "only one record at a time is bounded.");
    const double q = up(static_cast<double>(event.integer("sample_size")) /
                        static_cast<double>(event.integer("source_dataset_size")));
    if (event.integer("sample_size") == 0) return;
    const double s = batch_noise(event, event.inner(), count);
    if (s == kInfinity) return;
    if (q >= 1) return add_gaussian(s, distance(), count);
    // Another record takes the place: two contributions differ, whatever the adjacency.
    if (!(s / 2 > kSmallestPairNoise)) return add_unbounded(q, count);
    add_pair(replaced_gaussian_pair(q, capped(s / 2)), count);
  }

  void add_shuffled(const Event& event, double count) {
    expect_outside_batch(event);
    const double s = batch_noise(event, event.inner(), count);
    if (s == kInfinity) return;
    // One record more takes another's place in one batch, and that one is added to the last (docs/accounting.md).
    const double moved = adjacency_ == Adjacency::add_or_remove_one ? up(std::sqrt(5.0)) : distance() / group_;
    spending_.rounded_up = true;  // shuffling may amplify; nothing is claimed either way
    add_gaussian(s, moved * group_, count);
  }

  void add_balls(const Event& event, double count) {
    expect_outside_batch(event);
    if (adjacency_ == Adjacency::replace_one) refuse(event, "ask about add_or_remove_one or zero_out.");
    if (group_ > 1) refuse(event, "only one record at a time is bounded.");
    const double s = batch_noise(event, event.inner(), count);
    if (s == kInfinity) return;
    if (event.integer("bins") == 1) return add_gaussian(s, 1, count);
    // Without amplification where the likelihood ratios are too large for a grid.
    if (!(s > kSmallestAllocationNoise)) {
      spending_.rounded_up = true;
      return add_gaussian(s, 1, count);
    }
    // An average of fewer ratios is larger in convex order.
    if (event.integer("bins") > kMostBins) spending_.rounded_up = true;
    add_pair(random_allocation_pair(std::min(event.integer("bins"), kMostBins), capped(s)), count);
  }

  void add_matrix(const Event& event, double count) {
    expect_outside_batch(event);
    const double norm = toeplitz_sensitivity(event.numbers("coefficients"), event.integer("steps"),
                                             event.integer("min_separation"), event.integer("max_participations"));
    add_gaussian(event.noise_multiplier(), norm * distance(), count);
  }

  void add_tree(const Event& event, double count) {
    expect_outside_batch(event);
    if (adjacency_ == Adjacency::add_or_remove_one) {
      refuse(event, "one record more would shift all later ones. Ask about zero_out or replace_one.");
    }
    double levels = 0;
    for (std::int64_t steps : event.integers("step_counts")) {
      levels = std::max(levels, static_cast<double>(std::bit_width(static_cast<std::uint64_t>(steps))));
    }
    if (levels > 0) add_gaussian(event.noise_multiplier(), up(std::sqrt(levels)) * distance(), count);
  }

  void add_group(const Event& event, double count) {
    expect_outside_batch(event);
    const double before = group_;
    group_ *= static_cast<double>(event.integer("group_size"));
    if (group_ > 4096) refuse(event, "groups of more than 4096 records are not supported.");
    add(event.inner(), count);
    group_ = before;
  }

  void add_selection(const Event& event, double count) {
    Flattener flattener(adjacency_, group_);
    flattener.add(event.inner(), 1);
    Spending run = flattener.take();
    if (run.nothing()) return;
    if (run.log_unexposed < 0) return add_unbounded(1, count);  // which runs there are, and whether one is exposed, is random
    if (run.has_gap()) refuse(event, "the runs must be exact. Put FinitePrecisionDpEvent around the whole selection.");
    spending_.selections.push_back({std::make_shared<const Spending>(std::move(run)), event.number("mean"),
                                    event.number("shape"), count});
  }

  void add_finite_precision(const Event& event, double count) {
    Spending gap;
    gap.gap_order = event.number("order");
    gap.gap_divergence = event.number("divergence");
    gap.failure = event.number("failure");
    add_gap(gap, count);
    add(event.inner(), count);
  }

  // Divergences of one order add up; a bound of one order is a bound of every smaller one.
  void add_gap(const Spending& part, double count) {
    spending_.failure = std::min(1.0, sum_up(spending_.failure, product_up(part.failure, count)));
    if (part.gap_order == 0) return;
    spending_.gap_order = spending_.gap_order == 0 ? part.gap_order : std::min(spending_.gap_order, part.gap_order);
    spending_.gap_divergence = sum_up(spending_.gap_divergence, product_up(part.gap_divergence, count));
  }

  Adjacency adjacency_;
  double group_;
  bool in_batch_;  // of what a batch releases: nothing that is about more than the batch
  Spending spending_;
  std::map<std::pair<double, double>, double> sampled_;
  std::map<std::string, PairSteps> pairs_;
};

}  // namespace

Spending flatten(const Event& event, Adjacency adjacency) {
  Flattener flattener(adjacency, 1);
  flattener.add(event, 1);
  return flattener.take();
}

double unamplified_mu_squared(const Spending& spending) {
  if (!spending.selections.empty()) return kInfinity;
  double total = spending.mu_squared;
  for (const SampledGaussian& step : spending.sampled) {
    const double mu = 1 / step.noise_multiplier;
    total = sum_up(total, product_up(step.count, mu * mu * (1 + 1e-15)));
  }
  for (const PairSteps& step : spending.pairs) total = sum_up(total, product_up(step.count, step.pair->gaussian_mu_squared()));
  return total;
}

double toeplitz_sensitivity(const std::vector<double>& coefficients, std::int64_t steps, std::int64_t min_separation,
                            std::int64_t max_participations) {
  const auto coefficient = [&](std::int64_t t) {
    return t >= 0 && t < static_cast<std::int64_t>(coefficients.size()) ? coefficients[static_cast<std::size_t>(t)] : 0.0;
  };
  const std::int64_t separation = std::min(min_separation, steps);
  const std::int64_t most = (steps + separation - 1) / separation;
  const std::int64_t participations = std::min(max_participations, most);
  // sums[t]: what all participations add to step t, by the one a period before.
  std::vector<double> sums(static_cast<std::size_t>(steps));
  double squares = 0;
  for (std::int64_t t = 0; t < steps; ++t) {
    double sum = coefficient(t) + (t >= separation ? sums[static_cast<std::size_t>(t - separation)] : 0.0);
    if (participations < most && t >= separation * participations) sum -= coefficient(t - separation * participations);
    sums[static_cast<std::size_t>(t)] = std::max(sum, 0.0);
    squares += sum * sum;
  }
  return std::sqrt(squares) * (1 + 1e-12 * (1 + static_cast<double>(participations)));
}

double binomial_tail(double n, double q, double k) {
  if (k <= 0) return 1;
  if (k > n) return 0;
  if (q >= 1) return 1;
  // Terms upward from k fall once their ratio is below 1, and ever faster.
  const double odds = q / (1 - q);
  const double log_first = std::lgamma(n + 1) - std::lgamma(k + 1) - std::lgamma(n - k + 1) + k * std::log(q) +
                           (n - k) * std::log1p(-q);
  double sum = 0, term = 1;
  for (double i = k; i <= n; ++i) {
    sum += term;
    const double ratio = (n - i) / (i + 1) * odds;
    term *= ratio;
    if (ratio < 1 && term < 1e-17 * (1 - ratio) * sum) {
      sum += term / (1 - ratio);
      break;
    }
    if (log_first + std::log(sum) > 1e-3) return 1;
  }
  return std::min(1.0, std::exp(log_first + std::log(sum) + binomial_error(n)));
}

}  // namespace hushgrad
