// The clipping bound that follows a quantile of the norms: Andrew, Thakkar, McMahan, Ramaswamy 2021.
#pragma once

#include "dpcore/clipping/clipped_sum.h"

namespace hushgrad {

struct AdaptiveClippingOptions {
  double target_unclipped_quantile = 0.5;  // share of samples that the bound should leave as they are, in (0, 1)
  double clipbound_learning_rate = 0.2;    // of the geometric update, > 0
  double min_clipbound = 1e-3;
  double max_clipbound = 1e8;
  double unclipped_num_std = 0;            // standard deviation of the noise on the count of unclipped samples, > 0

  /// @throws InvalidArgument naming the first field outside its domain.
  void check() const;
};

/// The bound C_t. Each step releases the count of unclipped samples with Gaussian noise next to the gradient; both together
/// cost what one Gaussian mechanism of the run's noise_multiplier costs.
class AdaptiveClipping {
 public:
  /// @throws InvalidArgument: options, or first outside [min_clipbound, max_clipbound].
  AdaptiveClipping(AdaptiveClippingOptions options, double first_max_grad_norm);

  double max_grad_norm() const { return max_grad_norm_; }

  /// Of the gradient, so that gradient and count together cost `noise_multiplier`: (z^-2 - (2 s)^-2)^(-1/2), s the count's
  /// standard deviation, whose sensitivity is 1/2 (theorem 1 of the paper: a composition of two Gaussians on one batch is the
  /// Gaussian on both coordinates). Rounded up. 0 for 0.
  /// @throws InvalidArgument unless noise_multiplier < 2 s: the count alone would cost more.
  double gradient_noise_multiplier(double noise_multiplier) const;
  /// Of the count, as a multiple of its sensitivity.
  double count_noise_multiplier() const { return 2 * options_.unclipped_num_std; }

  /// C *= exp(-learning_rate (share - quantile)), share = 1/2 + count / expected_batch_size, kept within the limits.
  void update(const NoisySum& count, double expected_batch_size);

 private:
  AdaptiveClippingOptions options_;
  double max_grad_norm_;
};

}  // namespace hushgrad
