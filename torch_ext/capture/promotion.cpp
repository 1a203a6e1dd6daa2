#include "torch_ext/capture/promotion.h"

#include <torch/csrc/autograd/generated/Functions.h>

#include <array>
#include <string_view>

namespace hushgrad {
namespace {

using namespace torch::autograd::generated;

// Functions of their differentiable operands alone.
constexpr std::array<std::string_view, 48> kFunctionsOfOperands = {
    "WeightNormInterfaceBackward0", "MmBackward0", "AddmmBackward0", "BmmBackward0", "MvBackward0", "DotBackward0", "MulBackward0",
    "DivBackward0", "AddBackward0", "SubBackward0", "NegBackward0", "ExpBackward0", "LogBackward0", "SqrtBackward0", "RsqrtBackward0",
    "PowBackward0", "TanhBackward0", "SigmoidBackward0", "SoftplusBackward0", "ReluBackward0", "AbsBackward0", "ClampBackward1",
    "ClampMinBackward0", "SumBackward0", "SumBackward1", "MeanBackward0", "MeanBackward1", "NormBackward1", "VdotBackward0", "EmbeddingBackward0", "LinalgVectorNormBackward0",
    "SoftmaxBackward0", "LogSoftmaxBackward0", "ExpandBackward0", "RepeatBackward0", "CatBackward0", "StackBackward0", "TriuBackward0",
    "TrilBackward0", "SplitBackward0", "SplitWithSizesBackward0", "UnbindBackward0", "SliceBackward0", "SelectBackward0", "FlipBackward0",
    "DiagEmbedBackward0", "LinalgMatrixExpBackward0", "LinalgSolveExBackward0",
};

bool is_function_of_operands(const std::string& name) {
  for (std::string_view known : kFunctionsOfOperands) {
    if (name == known) return true;
  }
  // torch.compile, custom functions and everything unlisted may hold data that no edge shows.
  return false;
}

// The operand of an arithmetic node that has no edge: a Python number arrives as a 0-dimensional tensor.
bool missing_operand_is_scalar(Node& node) {
  if (auto* mul = dynamic_cast<MulBackward0*>(&node)) {
    const at::Tensor operand = mul->next_edge(0).is_valid() ? mul->other_.unpack() : mul->self_.unpack();
    return !operand.defined() || operand.dim() == 0;
  }
  if (auto* div = dynamic_cast<DivBackward0*>(&node)) {
    const at::Tensor operand = div->next_edge(0).is_valid() ? div->other_.unpack() : div->self_.unpack();
    return !operand.defined() || operand.dim() == 0;
  }
  return false;
}

bool is_sum_in_own_shape(const Site& site) {
  const Node& node = *site.node;
  if (!dynamic_cast<const AddBackward0*>(&node) && !dynamic_cast<const SubBackward0*>(&node)) return false;
  for (const Use& use : site.uses) {
    if (edge_sizes(use.boundary) != edge_sizes(Edge(site.node, 0))) return false;
  }
  return true;
}

// Linear layers are addmm with data on the left, which is never on record in a first layer.
bool takes_data_by_nature(Node& node) {
  return dynamic_cast<AddmmBackward0*>(&node) || dynamic_cast<MmBackward0*>(&node) || dynamic_cast<BmmBackward0*>(&node);
}

}  // namespace

bool may_be_promoted(const Site& site, bool forward_is_checked) {
  Node& node = *site.node;
  std::size_t valid = 0;
  for (const Edge& edge : node.next_edges()) valid += edge.is_valid();
  if (valid != site.uses.size() || !is_function_of_operands(node.name())) return false;
  // The indices are not on record: a table of positions is a function of the parameter, one of another sample's words is not.
  if (dynamic_cast<EmbeddingBackward0*>(&node)) return forward_is_checked;
  if (valid == node.num_outputs()) return true;
  if (takes_data_by_nature(node)) return false;
  return forward_is_checked || missing_operand_is_scalar(node) || is_sum_in_own_shape(site);
}

}  // namespace hushgrad
