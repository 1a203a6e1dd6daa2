// What the capture of one model is asked to do.
#pragma once

#include <cstddef>
#include <vector>

#include "dpcore/clipping/clipping_pass.h"

namespace hushgrad {

enum class LossReduction { mean, sum };

struct CaptureOptions {
  double max_grad_norm = 1.0;  // l2 norm of one sample's gradient over all parameters together
  LossReduction loss_reduction = LossReduction::mean;
  bool batch_first = true;     // outputs are [B, ...] (or [B*m, ...]); false: [T, B, ...]
  // The caller runs the model on other samples whenever watch() returns true and refuses it if an output of a sample that
  // stayed moves. Lets parameters be combined with tensors that the graph does not record (masks, buffers), and rows follow the
  // samples in no regular order (packed sequences, routed tokens).
  bool forward_is_checked = false;
  ClippingFunction clipping_function = ClippingFunction::clip;
  // Per-layer clipping: one bound a group in place of max_grad_norm, and the group of each parameter. A group is finished inside
  // the backward pass, as soon as every use of its parameters has arrived, so that no activation outlives its layer.
  std::vector<double> group_norms{};
  std::vector<std::size_t> group_of{};
  bool unchecked_loss = false;  // accept losses whose independence check_loss() cannot show
};

}  // namespace hushgrad
