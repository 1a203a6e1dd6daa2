// What has a closed form: the Gaussian mechanism, and a single Poisson-sampled Gaussian step.
#pragma once

#include "accounting/accountants/interval.h"

namespace hushgrad {

/// The true value lies within value +- error. value may be -infinity (then error is 0).
struct LogDelta {
  double value;
  double error;
};

/// Which neighbour holds the sample: remove compares (with, without), add compares (without, with).
enum class Direction { remove, add };

/// log delta of the Gaussian mechanism with sensitivity / deviation = mu > 0, for any finite epsilon:
/// delta = Phi(mu/2 - epsilon/mu) - e^epsilon Phi(-mu/2 - epsilon/mu) (Balle and Wang 2018, Theorem 8), evaluated as an
/// integral without cancellation, so it is relatively accurate however small delta is.
LogDelta gaussian_log_delta(double mu, double epsilon);

/// log delta of one Poisson-sampled Gaussian step in one direction, 0 < sampling_probability <= 1, any finite epsilon.
/// Substituting the sampled density turns either direction into a Gaussian hockey-stick at another epsilon.
LogDelta sampled_gaussian_log_delta(double sampling_probability, double noise_multiplier, double epsilon,
                                    Direction direction);

/// Bounds of epsilon(delta) and delta(epsilon) for the Gaussian mechanism with that mu^2 > 0.
Interval gaussian_epsilon(double mu_squared, double delta);
Interval gaussian_delta(double mu_squared, double epsilon);

/// The same for one Poisson-sampled Gaussian step, the worse of the two directions.
Interval sampled_gaussian_epsilon(double sampling_probability, double noise_multiplier, double delta);
Interval sampled_gaussian_delta(double sampling_probability, double noise_multiplier, double epsilon);

}  // namespace hushgrad
