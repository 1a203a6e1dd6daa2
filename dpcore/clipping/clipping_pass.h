// From per-sample norms to the clipped sum's type.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "dpcore/clipping/clipped_sum.h"

namespace hushgrad {

/// How a sample's norm n becomes its factor under the bound C.
enum class ClippingFunction {
  clip,       // min(1, C / n): Abadi et al. 2016
  normalise,  // C / (n + 0.01): Bu et al. 2022 (automatic clipping, AUTO-S)
};

/// One logical batch: hands out the clipping factors and, at the end, the only ClippedSum there is.
///
/// The parameters lie in one group (flat clipping) or in several (per layer), each with its own bound.
///
/// Guarantees, for the bound C of a group and any input:
///   - factor(b) * norm(b) <= C for every sample, up to floating-point rounding of the norm (sensitivity: empirical);
///   - a sample whose squared norm is not finite or negative gets factor 0: its gradient must not enter the group's sum;
///   - an empty batch is legal and gives the zero sum;
///   - the sum over all groups moves by at most l2_sensitivity() = sqrt(sum of C^2) with one sample.
///
///   | squared norm n2      | clip                 | normalise            |
///   | -------------------- | -------------------- | -------------------- |
///   | 0                    | 1                    | C / 0.01             |
///   | 0 < n2 <= C^2        | 1                    | C / (sqrt(n2) + 0.01)|
///   | n2 > C^2, finite     | C / sqrt(n2)         | C / (sqrt(n2) + 0.01)|
///   | NaN, inf, negative   | 0, listed in omitted | 0, listed in omitted |
class ClippingPass {
 public:
  /// One group. @throws InvalidArgument unless 0 < max_grad_norm < inf.
  explicit ClippingPass(double max_grad_norm, ClippingFunction function = ClippingFunction::clip);
  /// One bound a group. @throws InvalidArgument if there is none or one of them is not in (0, inf).
  explicit ClippingPass(std::vector<double> max_grad_norms, ClippingFunction function = ClippingFunction::clip);

  double l2_sensitivity() const;

  struct Factors {
    std::vector<double> factors;        // [B]
    std::vector<std::int64_t> omitted;  // samples whose gradient is not finite
    std::int64_t unclipped = 0;         // samples with norm <= C
  };
  /// squared_norms: [B], of each sample's gradient over the group.
  Factors factors(std::span<const double> squared_norms, std::size_t group = 0) const;

  /// Takes a physical batch's samples into the count that finish_count() hands out. Each sample once a logical batch.
  void count(const Factors& factors);

  /// Wraps the finished sum. The parts must hold nothing but sums of gradients scaled by factors() of this pass.
  /// @throws PrivacyViolation if called twice.
  ClippedSum finish(std::vector<SumPart> parts);

  /// Writes to `storage` how many samples were not clipped, each counted as +1/2, against the others, each as -1/2 (Andrew et
  /// al. 2021, section 2.2), and wraps it: one sample moves it by 1/2. @throws PrivacyViolation if called twice.
  ClippedSum finish_count(float& storage);

 private:
  std::vector<double> max_grad_norms_;
  ClippingFunction function_;
  double count_ = 0;
  bool finished_ = false, count_finished_ = false;
};

}  // namespace hushgrad
