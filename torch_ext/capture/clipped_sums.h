// From the contributions that arrive in backward passes to one clipped sum a parameter.
#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <optional>
#include <vector>

#include "torch_ext/capture/capture_options.h"
#include "torch_ext/capture/contribution.h"
#include "torch_ext/capture/sites.h"

namespace hushgrad {

/// The per-sample gradients of one physical batch while its backward passes run, and the sum of the logical batch.
///
/// Norms are taken as soon as a parameter's only use has arrived: where that instantiates the gradients, they are smaller than the
/// activations that they replace, which then leave memory while the backward pass goes on. Several uses of one parameter wait for
/// each other, since the norm of a sum is not the sum of the norms. Under per-layer clipping a whole group is finished when its
/// last use has arrived.
class ClippedSums {
 public:
  /// Both outlive this. @throws InvalidArgument if the groups do not fit the parameters.
  ClippedSums(const ParameterIndex& parameters, const CaptureOptions& options);

  /// batch: B >= 0 samples. Drops what an earlier batch left.
  void begin_batch(std::int64_t batch);
  /// The graph of this batch has this site: its uses will arrive.
  void expect(const Site& site);
  /// What one site contributes in a backward pass. contributions: one a use, null where nothing flows.
  /// @throws Unsupported if a group is finished already.
  void arrive(const Site& site, std::vector<std::unique_ptr<Contribution>> contributions);
  /// The backward pass that brought them ended, or failed half-way.
  void keep_arrived();
  void drop_arrived();

  /// Something has arrived that accumulate() would add.
  bool has_gradients() const;
  /// Clips the batch's gradients and adds them to the logical batch's sum.
  void accumulate();
  /// Drops the physical batch; with `all`, the logical batch's sum as well.
  void discard(bool all);

  /// See GraphCapture.
  ClippedSum finish();
  ClippedSum finish_count(float& storage);
  std::vector<at::Tensor> take_sums() { return std::move(sums_); }

  /// No logical batch has begun, and there is one bound for all parameters.
  bool may_change_bound() const { return accumulated_ == 0 && !has_gradients() && groups_.size() == 1; }
  /// The bound in the options has changed.
  void renew_pass();

 private:
  struct ParameterGradient {
    Use use;
    std::unique_ptr<Contribution> contribution;
    at::Tensor squared_norms{};  // [B] float64, if taken already
  };
  /// Per-sample gradients waiting at the boundary of a subgraph of parameters.
  struct CompositeGradient {
    Edge boundary;
    std::unique_ptr<Contribution> contribution;
  };
  using ParameterGradients = std::vector<ParameterGradient>;

  /// What of a parameter or a group is still to come in this physical batch.
  struct Pending {
    std::int64_t expected = 0, arrived = 0;
    bool late = false;      // reached through a subgraph of parameters: known in accumulate() only
    bool finished = false;  // of groups
  };

  static bool same_path(const Use& x, const Use& y);
  static std::unique_ptr<Contribution> tied_table(ParameterGradients& uses);
  void make_groups();
  std::size_t group_of(std::int64_t parameter) const { return group_of_[static_cast<std::size_t>(parameter)]; }
  void expect(std::int64_t parameter);
  void expect_late(std::int64_t parameter);
  void take_norms(ParameterGradient& gradient);
  void settle_composites();
  void finish_group_if_complete(std::size_t group);
  void finish_group(std::size_t group, ParameterGradients& gradients, std::vector<at::Tensor>& sums);
  at::Tensor squared_norms_of(std::size_t group, std::vector<ParameterGradients>& by_parameter);
  std::unique_ptr<Contribution> combined(ParameterGradients& uses) const;
  at::Tensor per_sample_of(ParameterGradient& gradient) const;

  const ParameterIndex& parameters_;
  const CaptureOptions& options_;
  ClippingPass pass_;
  std::vector<std::vector<std::size_t>> groups_;  // [group] -> its parameters, the last ones first
  std::vector<std::size_t> group_of_;             // [parameter]

  std::int64_t batch_ = 0;
  ParameterGradients gradients_, arriving_;
  std::vector<CompositeGradient> composites_, arriving_composites_;
  std::vector<Pending> of_parameter_, of_group_;
  std::vector<at::Tensor> early_;  // [parameter] sums of groups that are finished

  std::vector<at::Tensor> sums_;  // of the logical batch
  std::int64_t accumulated_ = 0;  // physical batches in it
  std::optional<ClippingPass> counted_;  // the logical batch's pass after finish()
};

}  // namespace hushgrad
