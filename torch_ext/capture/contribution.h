// What one use of a parameter contributes to the per-sample gradients, kept as compactly as its operator allows.
#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <vector>

namespace hushgrad {

/// The clipping factors as the weighted sums need them.
struct SampleFactors {
  at::Tensor factors;  // [B] float32 or float64 on the parameters' device, scale of the loss included
  at::Tensor omitted;  // [k] int64: samples whose gradient is not finite; undefined if there are none
};

/// Per-sample gradients g_b, b < B, of one tensor ("boundary") that leads to a parameter. Shapes of the boundary.
class Contribution {
 public:
  virtual ~Contribution() = default;
  /// ||g_b||^2: [B] float64. Called at most once before weighted_sum().
  virtual at::Tensor squared_norms() = 0;
  /// sum_b factor_b g_b, samples in `omitted` left out even where they are NaN. Uses the contribution up.
  virtual at::Tensor weighted_sum(const SampleFactors& factors) = 0;
  /// g: [B, *boundary]. Costs B times the parameter's memory.
  virtual at::Tensor per_sample() = 0;
  /// One contribution equal to the sum of all of `alike` (this first), or null if there is no cheap way.
  virtual std::unique_ptr<Contribution> merge(std::vector<std::unique_ptr<Contribution>>&) { return nullptr; }
};

/// Per-sample gradients as they are: [B, *boundary].
class Instantiated final : public Contribution {
 public:
  explicit Instantiated(at::Tensor gradients) : gradients_(std::move(gradients)) {}
  at::Tensor squared_norms() override;
  at::Tensor weighted_sum(const SampleFactors& factors) override;
  at::Tensor per_sample() override { return gradients_; }

 private:
  at::Tensor gradients_;
};

/// float64 and complex numbers stay, everything else becomes float32: norms and sums are never taken in less.
at::Tensor at_least_float(const at::Tensor& t);

/// t: [B, ...] -> sum of squares of each sample: [B] float64.
at::Tensor row_squared_norms(const at::Tensor& t);

/// t * factors. In place where nobody else can see t: its memory is read once more by no one.
at::Tensor scaled(at::Tensor&& t, const at::Tensor& factors);

/// Whether nobody else holds t's memory.
bool is_only_ours(const at::Tensor& t);

/// t: [B, ...] with the omitted samples' rows set to zero. t itself if there are none.
at::Tensor without_omitted(const at::Tensor& t, const SampleFactors& factors);

}  // namespace hushgrad
