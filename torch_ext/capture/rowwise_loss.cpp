#include "torch_ext/capture/rowwise_loss.h"

#include <ATen/CPUGeneratorImpl.h>
#include <torch/csrc/autograd/generated/Functions.h>

#include "torch_ext/capture/instead.h"

namespace hushgrad {
namespace {

using namespace torch::autograd::generated;

/// What a loss was computed on, and along which dimension its rows lie.
struct LossInput {
  at::Tensor values;
  std::int64_t rows;
};

LossInput input_of(Node& node) {
  if (auto* margin = dynamic_cast<MultiMarginLossBackward0*>(&node)) return {margin->self_.unpack(), 0};
  if (auto* margin = dynamic_cast<MultilabelMarginLossBackward0*>(&node)) return {margin->self_.unpack(), 0};
  if (auto* ctc = dynamic_cast<CtcLossBackward0*>(&node)) return {ctc->log_probs_.unpack(), 1};
  if (auto* ctc = dynamic_cast<CtcLossBackward1*>(&node)) return {ctc->log_probs_.unpack(), 1};
  return {};
}

bool is_rowwise(Node& node) {
  return dynamic_cast<MultiMarginLossBackward0*>(&node) || dynamic_cast<MultilabelMarginLossBackward0*>(&node) ||
         dynamic_cast<CtcLossBackward0*>(&node) || dynamic_cast<CtcLossBackward1*>(&node);
}

struct SmoothGradient final : torch::autograd::FunctionPreHook {
  explicit SmoothGradient(Node* node) : node(node) {}

  variable_list operator()(const variable_list& backprops) override {
    if (!backprops[0].defined()) return backprops;
    const LossInput input = input_of(*node);
    at::Generator generator = at::detail::createCPUGenerator(0x6a09e667);
    const at::Tensor direction = at::randn(input.values.sizes(), generator, at::TensorOptions().dtype(at::kFloat)).to(input.values.device(), input.values.scalar_type());
    // One number a row, or one for all where there are no rows.
    at::Tensor own = direction * input.values, backprop = backprops[0];
    const bool has_rows = input.rows < input.values.dim() - 1;
    if (has_rows) {
      std::vector<std::int64_t> others, shape(input.values.dim(), 1);
      for (std::int64_t dim = 0; dim < input.values.dim(); ++dim) {
        if (dim != input.rows) others.push_back(dim);
      }
      own = own.sum(others, true);
      shape[input.rows] = backprop.numel();
      backprop = backprop.reshape(shape);
    } else {
      own = own.sum();
    }
    variable_list instead(node->num_outputs());
    instead[0] = backprop * direction * (1 + own);
    node->add_post_hook(std::make_unique<InsteadOfNode>(std::move(instead)));
    return variable_list(backprops.size());
  }

  Node* node;
};

}  // namespace

RowwiseLosses::RowwiseLosses(const std::vector<NodePtr>& nodes) {
  for (const NodePtr& node : nodes) {
    if (!is_rowwise(*node)) continue;
    auto hook = std::make_unique<SmoothGradient>(node.get());
    hooked_.emplace_back(node, hook.get());
    node->add_pre_hook(std::move(hook));
  }
}

RowwiseLosses::~RowwiseLosses() {
  for (const auto& [node, hook] : hooked_) {
    std::erase_if(node->pre_hooks(), [hook = hook](const auto& other) { return other.get() == hook; });
  }
}

}  // namespace hushgrad
