// An event reduced to what accounting depends on: the order and nesting of a composition do not matter.
#pragma once

#include <memory>
#include <vector>

#include "accounting/accountants/adjacency.h"
#include "accounting/accountants/loss_pair.h"
#include "accounting/event.h"

namespace hushgrad {

/// `count` steps of Gaussian noise on Poisson batches. 0 < sampling_probability < 1, noise_multiplier > 0, count > 0.
struct SampledGaussian {
  double sampling_probability;
  double noise_multiplier;
  double count;
};

/// `count` > 0 runs of a mechanism with that dominating pair.
struct PairSteps {
  LossPairPointer pair;
  double count;
};

struct Spending;

/// `count` times the best of a random number of runs of `run` (RepeatAndSelectDpEvent).
struct Selection {
  std::shared_ptr<const Spending> run;
  double mean, shape;
  double count;
};

/// The parts of a composition. All rounding goes towards more spending.
struct Spending {
  /// Distinct (sampling_probability, noise_multiplier), in ascending order.
  std::vector<SampledGaussian> sampled;
  /// Distinct pairs, in the order of their keys.
  std::vector<PairSteps> pairs;
  std::vector<Selection> selections;
  /// All plain Gaussian releases are one: sum of 1 / noise_multiplier^2 (Dong, Roth, Su 2019, Corollary 3.3).
  double mu_squared = 0;
  /// Log of the probability that no release without any noise touched a given sample; 0 where there was none,
  /// -infinity where one did for certain.
  double log_unexposed = 0;
  /// Extreme parameters were replaced by ones that spend more, or a part is known by an upper bound only, so nothing can
  /// be said about the lower end.
  bool rounded_up = false;
  /// How far the real releases may be from the ideal ones (FinitePrecisionDpEvent): Renyi divergence of that order,
  /// outside an event of probability `failure`.
  double gap_order = 0, gap_divergence = 0, failure = 0;

  bool nothing() const {
    return sampled.empty() && pairs.empty() && selections.empty() && mu_squared == 0 && log_unexposed == 0 && !has_gap();
  }
  bool only_gaussian() const {
    return sampled.empty() && pairs.empty() && selections.empty() && log_unexposed == 0 && mu_squared > 0;
  }
  bool has_gap() const { return gap_divergence > 0 || failure > 0; }
};

/// Throws Unsupported, naming the sub-event and saying why, for what has no proven bound under that adjacency.
Spending flatten(const Event& event, Adjacency adjacency = Adjacency::add_or_remove_one);

/// mu^2 of one Gaussian release that dominates everything here, as if no sampling or allocation amplified; rounded up.
/// Infinite where a part has no such bound (selections, pairs without gaussian_mu_squared()).
double unamplified_mu_squared(const Spending& spending);

/// The l2 norm of what one record adds to C x in a MatrixFactorizationDpEvent, in units of its contribution: for
/// non-negative, non-increasing coefficients the worst participations are the earliest and closest ones (Kalinin and
/// Lampert 2024, Theorem 2). Rounded up.
double toeplitz_sensitivity(const std::vector<double>& coefficients, std::int64_t steps, std::int64_t min_separation,
                            std::int64_t max_participations);

/// P(Binomial(n, q) >= k), rounded up.
double binomial_tail(double n, double q, double k);

}  // namespace hushgrad
