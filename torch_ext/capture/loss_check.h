// Proves that a loss treats samples independently between the model's outputs and backward().
#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <unordered_set>
#include <vector>

#include "torch_ext/capture/rows.h"
#include "torch_ext/compat.h"

namespace hushgrad {

/// Where a batched output of the model left it.
struct WatchedOutput {
  Edge edge;
  RowMap map;
};

/// The gradient of sample b's part of the loss with respect to its outputs must not move with another sample's outputs:
/// the Hessian of the loss in the outputs is zero outside of the samples' own blocks. 2*ceil(log2 B) products of the Hessian with
/// vectors that live on some of the samples show it, once for each structure of the loss's graph.
///
/// Refuses:
///   - losses with mixed second derivatives: contrastive losses, functions of a batch mean, batch variances;
///   - operators that decide by one sample what another one's gradient is, where second derivatives are zero (gates.h): the largest
///     loss of the batch, a hinge on pairs of samples, flooding;
///   - a mean over kept tokens (nll_loss, cross_entropy with reduction="mean" and ignored targets or class weights): the
///     divisor counts the other samples' tokens; a mean over rows that a condition selects;
///   - outputs spread over all samples' targets by shapes that do not fit (batch_product.h), where samples are told by no derivative;
///   - a loss that leads into the model beside its outputs (an auxiliary loss computed inside);
///   - a loss with a custom function or an operator without second derivative (rowwise_loss.h knows some that need none), unless `set_unchecked(true)`.
///
/// Not seen: numbers that the loss takes of the batch without a graph (detached statistics, class counts of the targets).
class LossCheck {
 public:
  using IsSite = std::function<bool(const Node*)>;

  /// losses: what backward() starts from; gradients: its seeds, undefined for ones. is_site: nodes that use private parameters.
  /// batch >= 1; a batch of one proves nothing and is remembered as such. Returns whether the losses come from the outputs at all.
  /// @throws Unsupported.
  bool check(const std::vector<at::Tensor>& losses, const std::vector<at::Tensor>& gradients,
             const std::vector<WatchedOutput>& outputs, std::int64_t batch, const IsSite& is_site);

  /// Accepts a loss that cannot be checked. What is seen to mix samples is refused all the same.
  void set_unchecked(bool unchecked) { unchecked_ = unchecked; }

 private:
  std::unordered_set<std::uint64_t> proven_;
  bool unchecked_ = false;
};

}  // namespace hushgrad
