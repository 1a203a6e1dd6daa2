// Per-sample clipping of an unchanged model: see docs/architecture.md, "Capture".
#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <string>
#include <vector>

#include "torch_ext/capture/capture_options.h"
#include "torch_ext/capture/sites.h"

namespace hushgrad {

/// Attaches to the graphs of one model's outputs and turns ordinary backward passes into a ClippedSum.
///
///   begin_batch(B); watch(outputs); loss.backward(); accumulate();     once a physical batch
///   ClippedSum sum = finish();                                         once a logical batch
///
/// Guarantees:
///   - finish() is the sum over samples of g_b * min(1, C / ||g_b||), g_b the gradient of sample b's own loss over all
///     parameters together (or over each group): float32, up to rounding; samples whose gradient is not finite contribute zero;
///   - an ordinary gradient that would reach a private parameter raises PrivacyViolation instead;
///   - a model whose samples are not independent is refused by name (Unsupported) at watch().
///
/// Edge cases: an empty batch gives the zero sum; parameters that no output uses get zeros; outputs without a graph
/// (no_grad, evaluation) are ignored. Not thread-safe; backward may run on the engine's device threads.
class GraphCapture {
 public:
  /// parameters: trainable leaves, each once; names for messages. ignored: further leaves that get no gradient.
  GraphCapture(std::vector<at::Tensor> parameters, std::vector<std::string> names, std::vector<at::Tensor> ignored,
               CaptureOptions options);
  ~GraphCapture();
  GraphCapture(const GraphCapture&) = delete;
  GraphCapture& operator=(const GraphCapture&) = delete;

  /// Starts a physical batch of `size` samples (0 is legal). What an earlier batch left unclipped must have been
  /// accumulated or discarded. @throws InvalidState otherwise.
  void begin_batch(std::int64_t size);

  /// Attaches to the graph behind the outputs of a forward pass over the current batch. May be called several times a
  /// batch. Returns true if this graph's structure was seen for the first time and has been proven by probing.
  bool watch(const std::vector<at::Tensor>& outputs);

  /// What is wrong with the model if the caller's forward check fails, by the operator's name, where the last new structure shows one.
  const std::string& suspicion() const;

  /// Under forward_is_checked: true if a structure that is new in this batch holds parts that are taken for functions of parameters,
  /// on condition that the caller lets check_derivatives() show it.
  bool needs_derivatives() const;

  /// Compares those parts between the outputs of this call and of the one before: forward passes from the same state, between which
  /// every sample was replaced, or in the second of which samples were left out (`of_part`; what then looks different from its
  /// structure on says nothing). Derivatives that moved are derivatives of data. Leaves nothing attached. @throws Unsupported.
  void check_derivatives(const std::vector<at::Tensor>& outputs, bool of_part = false);

  /// True if a backward pass has left per-sample gradients that were not accumulated yet.
  bool has_gradients() const;

  /// Refuses a loss that couples the samples after the outputs (a contrastive loss, the root of a batch mean, a mean over the
  /// batch's kept tokens): see loss_check.h. Call before each backward pass. gradients: what backward() is seeded with, one a
  /// loss, undefined for ones. Losses that do not come from watched outputs pass unseen. @throws Unsupported.
  void check_loss(const std::vector<at::Tensor>& losses, const std::vector<at::Tensor>& gradients);

  /// Clips what the backward passes of this physical batch captured and adds it to the logical batch's sum.
  /// @throws InvalidState if no backward pass ran since begin_batch() (unless the batch is empty).
  void accumulate();

  /// Drops the current physical batch; with `all`, the logical batch's sum as well.
  void discard(bool all);

  /// Ends the logical batch. The ClippedSum views sums(), which stay valid until the next accumulate().
  ClippedSum finish();

  /// float32, one a parameter, in order; contiguous.
  std::vector<at::Tensor> take_sums();

  /// After finish() and before the next batch: the count of unclipped samples of the same logical batch, in `storage`.
  ClippedSum finish_count(float& storage);

  double max_grad_norm() const;
  /// Between logical batches. @throws InvalidState in the middle of one, or under per-layer clipping.
  void set_max_grad_norm(double max_grad_norm);

  class Impl;

 private:
  std::shared_ptr<Impl> impl_;
};

}  // namespace hushgrad
