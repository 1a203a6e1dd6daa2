#include "torch_ext/capture/promotion.h"

#include <ATen/CPUGeneratorImpl.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/generated/Functions.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "torch_ext/capture/prober.h"

namespace hushgrad {
namespace {

using namespace torch::autograd::generated;

// Functions of their differentiable operands alone.
constexpr std::array kFunctionsOfOperands = std::to_array<std::string_view>({
    // products and arithmetic
    "MmBackward0", "AddmmBackward0", "BmmBackward0", "BaddbmmBackward0", "MvBackward0", "DotBackward0", "VdotBackward0", "MulBackward0",
    "DivBackward0", "AddBackward0", "SubBackward0", "RsubBackward0", "RsubBackward1", "NegBackward0", "AddcmulBackward0", "LerpBackward0",
    "LerpBackward1", "MaximumBackward0", "MinimumBackward0", "PowBackward0", "PowBackward1", "PowBackward2", "ReciprocalBackward0",
    // elementwise
    "ExpBackward0", "Expm1Backward0", "LogBackward0", "Log1PBackward0", "SqrtBackward0", "RsqrtBackward0", "TanhBackward0",
    "SigmoidBackward0", "LogSigmoidBackward0", "SoftplusBackward0", "ReluBackward0", "GeluBackward0", "SiluBackward0", "EluBackward0",
    "LeakyReluBackward0", "HardtanhBackward0", "AbsBackward0", "SgnBackward0", "SinBackward0", "CosBackward0", "ErfBackward0",
    "ClampBackward0", "ClampBackward1", "ClampMinBackward0", "ClampMinBackward1", "ClampMaxBackward0",
    // reductions and normalisation
    "SumBackward0", "SumBackward1", "MeanBackward0", "MeanBackward1", "ProdBackward0", "ProdBackward1", "CumsumBackward0",
    "NormBackward0", "NormBackward1", "LinalgVectorNormBackward0", "AmaxBackward0", "AminBackward0", "StdBackward0", "VarBackward0",
    "LogsumexpBackward0", "SoftmaxBackward0", "LogSoftmaxBackward0", "WeightNormInterfaceBackward0",
    // shapes
    "ExpandBackward0", "RepeatBackward0", "CatBackward0", "StackBackward0", "TriuBackward0", "TrilBackward0", "SplitBackward0",
    "SplitWithSizesBackward0", "UnbindBackward0", "SliceBackward0", "SelectBackward0", "FlipBackward0", "RollBackward0",
    "DiagonalBackward0", "DiagEmbedBackward0", "ConstantPadNdBackward0", "ReflectionPad1DBackward0", "ReflectionPad2DBackward0",
    "ReplicationPad1DBackward0", "ReplicationPad2DBackward0", "UnfoldBackward0", "AsStridedBackward0", "CopySlices",
    // resampling of learned maps
    "UpsampleNearest1DBackward0", "UpsampleNearest2DBackward0", "UpsampleNearest3DBackward0", "UpsampleLinear1DBackward0",
    "UpsampleBilinear2DBackward0", "UpsampleBilinear2DAaBackward0", "UpsampleBicubic2DBackward0", "UpsampleBicubic2DAaBackward0",
    "UpsampleTrilinear3DBackward0",
    // linear algebra of reparametrisations
    "LinalgMatrixExpBackward0", "LinalgSolveExBackward0", "LinalgHouseholderProductBackward0", "LinalgQrBackward0",
    "LinalgInvExBackward0", "LinalgCholeskyExBackward0", "LinalgEighBackward0", "LinalgSvdBackward0", "LinalgSolveTriangularBackward0",
});

// Functions of an operand and of indices or masks that no edge shows: a table of positions is a function of the parameter, a
// table looked up with another sample's words is not.
constexpr std::array kIndexed = std::to_array<std::string_view>({
    "EmbeddingBackward0", "IndexBackward0", "IndexSelectBackward0", "GatherBackward0", "WhereBackward0", "MaskedFillBackward0",
    "MaskedFillBackward1", "TakeBackward0", "ScatterBackward0", "ScatterAddBackward0", "IndexPutBackward0", "IndexCopyBackward0",
});

template <std::size_t N>
bool is_one_of(const std::array<std::string_view, N>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
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

bool may_be_constant(const Site& site) {
  std::size_t valid = 0;
  for (const Edge& edge : site.node->next_edges()) valid += edge.is_valid();
  return valid == site.uses.size() && site.node->name() != "CompiledFunctionBackward";
}

DerivativeRecord::DerivativeRecord(const Walk& walk, const ParameterIndex& parameters) {
  for (const Site& site : walk.sites) {
    for (const Use& use : site.uses) {
      if (use.parameter < 0) parts_.push_back(part_at(use.boundary, parameters));
    }
  }
}

DerivativeRecord::Part DerivativeRecord::part_at(const Edge& boundary, const ParameterIndex& parameters) {
  Part part{edge_sizes(boundary), {}};
  std::vector<Edge> leaves;
  for (const NodePtr& node : walk_graph({boundary}, parameters, {}).nodes) {
    const auto p = parameters.find(node.get());
    if (p < 0) continue;
    part.derivatives.emplace_back(static_cast<std::size_t>(p), at::Tensor());
    leaves.emplace_back(node, 0);
  }
  if (leaves.empty()) return part;
  at::Generator generator = at::detail::createCPUGenerator(0x2545f491);
  const auto& metadata = boundary.function->input_metadata(boundary.input_nr);
  const at::Tensor direction = at::randn(part.sizes, generator, at::TensorOptions().dtype(at::kFloat))
                                   .to(metadata.device(), metadata.dtype().toScalarType());
  const ProbingScope probing;
  const variable_list found = torch::autograd::Engine::get_default_engine().execute({boundary}, {direction}, /*keep_graph=*/true,
                                                                                    /*create_graph=*/false, /*accumulate_grad=*/false, leaves);
  for (std::size_t i = 0; i < found.size(); ++i) {
    if (found[i].defined()) part.derivatives[i].second = found[i].is_sparse() ? found[i].to_dense() : found[i].detach().clone();
  }
  return part;
}

std::optional<std::size_t> DerivativeRecord::first_difference(const Part& x, const Part& y) {
  constexpr double kTolerance = 1e-5;
  for (std::size_t i = 0; i < x.derivatives.size(); ++i) {
    const auto& [p, mine] = x.derivatives[i];
    if (i >= y.derivatives.size() || y.derivatives[i].first != p) return p;
    const at::Tensor& its = y.derivatives[i].second;
    if (mine.defined() != its.defined()) return p;
    if (!mine.defined() || mine.equal(its)) continue;
    // NaN is unlike itself: refused.
    if (!((mine - its).norm().item<double>() <= kTolerance * mine.norm().item<double>())) return p;
  }
  return std::nullopt;
}

std::optional<std::string> DerivativeRecord::differs_from(const DerivativeRecord& other, const ParameterIndex& parameters, bool of_part) const {
  for (std::size_t i = 0; i < std::min(parts_.size(), other.parts_.size()); ++i) {
    if (of_part && parts_[i].sizes != other.parts_[i].sizes) continue;
    if (const auto p = first_difference(parts_[i], other.parts_[i])) return parameters.name(*p);
  }
  return std::nullopt;
}

bool may_be_promoted(const Site& site, bool forward_is_checked) {
  Node& node = *site.node;
  const std::string name = node.name();
  std::size_t valid = 0;
  for (const Edge& edge : node.next_edges()) valid += edge.is_valid();
  if (valid != site.uses.size()) return false;
  if (is_one_of(kIndexed, name)) return forward_is_checked;
  // torch.compile, custom functions and everything unlisted may hold data that no edge shows.
  if (!is_one_of(kFunctionsOfOperands, name)) return false;
  if (valid == node.num_outputs()) return true;
  if (takes_data_by_nature(node)) return false;
  return forward_is_checked || missing_operand_is_scalar(node) || is_sum_in_own_shape(site);
}

}  // namespace hushgrad
