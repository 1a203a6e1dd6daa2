// An event reduced to what accounting depends on: the order and nesting of a composition do not matter.
#pragma once

#include <vector>

#include "accounting/event.h"

namespace hushgrad {

/// `count` steps of Gaussian noise on Poisson batches. 0 < sampling_probability < 1, noise_multiplier > 0, count > 0.
struct SampledGaussian {
  double sampling_probability;
  double noise_multiplier;
  double count;
};

/// The parts of a composition. All rounding goes towards more spending.
struct Spending {
  /// Distinct (sampling_probability, noise_multiplier), in ascending order.
  std::vector<SampledGaussian> sampled;
  /// All plain Gaussian releases are one: sum of 1 / noise_multiplier^2 (Dong, Roth, Su 2019, Corollary 3.3).
  double mu_squared = 0;
  /// Log of the probability that no release without any noise touched a given sample; 0 where there was none,
  /// -infinity where one did for certain.
  double log_unexposed = 0;
  /// Extreme parameters were replaced by ones that spend more, so nothing can be said about the lower end.
  bool rounded_up = false;

  bool nothing() const { return sampled.empty() && mu_squared == 0 && log_unexposed == 0; }
  bool only_gaussian() const { return sampled.empty() && log_unexposed == 0; }
};

/// Throws Unsupported, naming the sub-event, for what is neither Gaussian, Poisson-sampled Gaussian, NoOp, NonPrivate
/// nor a composition of those. A Poisson sample of a composition is supported as long as the composition is itself
/// unsampled: Gaussian releases on one batch are one Gaussian release.
Spending flatten(const Event& event);

}  // namespace hushgrad
