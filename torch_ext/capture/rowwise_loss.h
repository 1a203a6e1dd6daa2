// Losses of PyTorch without a second derivative that treat rows one by one by definition.
#pragma once

#include <torch/csrc/autograd/function_hook.h>

#include <utility>
#include <vector>

#include "torch_ext/compat.h"

namespace hushgrad {

/// While this lives, every such loss among the nodes (multi_margin_loss, multilabel_margin_loss, ctc_loss) gives another gradient: one
/// that has a derivative, and that depends on all of a row and on nothing else. What couples rows before or after the loss
/// couples them in that gradient too; the loss itself does not.
class RowwiseLosses {
 public:
  explicit RowwiseLosses(const std::vector<NodePtr>& nodes);
  ~RowwiseLosses();
  RowwiseLosses(const RowwiseLosses&) = delete;
  RowwiseLosses& operator=(const RowwiseLosses&) = delete;

 private:
  std::vector<std::pair<NodePtr, const torch::autograd::FunctionPreHook*>> hooked_;
};

}  // namespace hushgrad
