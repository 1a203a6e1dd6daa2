// From per-sample norms to the clipped sum's type.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "dpcore/clipping/clipped_sum.h"

namespace hushgrad {

/// One logical batch: hands out the clipping factors and, at the end, the only ClippedSum there is.
///
/// Guarantees, for max_grad_norm C and any input:
///   - factor(b) * norm(b) <= C for every sample, up to floating-point rounding of the norm (sensitivity: empirical);
///   - a sample whose squared norm is not finite or negative gets factor 0: its gradient must not enter the sum;
///   - an empty batch is legal and gives the zero sum.
///
///   | squared norm n2     | factor              |
///   | ------------------- | ------------------- |
///   | 0                   | 1                   |
///   | 0 < n2 <= C^2       | 1                   |
///   | n2 > C^2, finite    | C / sqrt(n2)        |
///   | NaN, inf, negative  | 0, listed in omitted |
class ClippingPass {
 public:
  /// @throws InvalidArgument unless 0 < max_grad_norm < inf.
  explicit ClippingPass(double max_grad_norm);

  double max_grad_norm() const { return max_grad_norm_; }

  struct Factors {
    std::vector<double> factors;         // [B]
    std::vector<std::int64_t> omitted;   // samples whose gradient is not finite
  };
  /// squared_norms: [B], of each sample's whole gradient.
  Factors factors(std::span<const double> squared_norms) const;

  /// Wraps the finished sum. The parts must hold nothing but sums of gradients scaled by factors() of this pass.
  /// @throws PrivacyViolation if called twice.
  ClippedSum finish(std::vector<SumPart> parts);

 private:
  double max_grad_norm_;
  bool finished_ = false;
};

}  // namespace hushgrad
