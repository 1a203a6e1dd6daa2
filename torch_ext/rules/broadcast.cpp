// Parameters in broadcast arithmetic: positional tables, scales, shifts, RMSNorm, class tokens.
#include <torch/csrc/autograd/generated/Functions.h>

#include "torch_ext/rules/rule.h"

namespace hushgrad {
namespace {

using namespace torch::autograd::generated;

template <typename... Nodes>
bool is_any(Node& node) {
  return (... || (dynamic_cast<Nodes*>(&node) != nullptr));
}

void unpack_operands_once(Node& node) {
  if (auto* mul = dynamic_cast<MulBackward0*>(&node)) {
    unpack_once(mul->self_);
    unpack_once(mul->other_);
  } else if (auto* div = dynamic_cast<DivBackward0*>(&node)) {
    unpack_once(div->self_);
    unpack_once(div->other_);
  } else if (auto* prelu = dynamic_cast<PreluKernelBackward0*>(&node)) {
    unpack_once(prelu->self_);
    unpack_once(prelu->weight_);
  }
}

}  // namespace

bool broadcast_rule(const SiteView& view, Contributions& out) {
  Node& node = view.node();
  const bool expand = is_any<ExpandBackward0>(node);
  if (!expand && !is_any<AddBackward0, SubBackward0, MulBackward0, DivBackward0, PreluKernelBackward0>(node)) return false;
  if (!view.flows()) return true;
  unpack_operands_once(node);
  for (std::size_t i = 0; i < view.site.uses.size(); ++i) {
    const Use& use = view.site.uses[i];
    // Of these operators apply() gives the gradient in the shape of the output; the engine would reduce it. expand
    // reduces by itself, but its unreduced gradient is the backprop.
    const at::Tensor unreduced = expand ? view.backprops[0] : apply_for_use(view, use, view.backprops);
    if (!unreduced.defined()) continue;
    if (unreduced.sizes() != view.backprops[0].sizes()) return false;
    out[i] = reduce_broadcast(unreduced, view.maps[0], view.batch, edge_sizes(use.boundary));
    if (!out[i]) return false;
  }
  return true;
}

}  // namespace hushgrad
