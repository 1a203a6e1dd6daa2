#include "torch_ext/capture/gates.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ExpandUtils.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/generated/Functions.h>
#include <torch/csrc/autograd/variable.h>

#include <bit>
#include <functional>
#include <typeindex>
#include <unordered_map>

#include "torch_ext/capture/prober.h"
#include "torch_ext/capture/row_movers.h"
#include "torch_ext/capture/sites.h"

namespace hushgrad {
namespace {

using namespace torch::autograd::generated;

/// Dimensions along which one entry is selected out of several; empty for elementwise operators.
using Lines = std::vector<std::int64_t>;
using LinesOf = std::function<Lines(Node&, std::int64_t)>;

template <typename T>
std::pair<const std::type_index, LinesOf> elementwise() {
  return {typeid(T), [](Node&, std::int64_t) { return Lines{}; }};
}

template <typename T>
std::pair<const std::type_index, LinesOf> along_dim() {
  return {typeid(T), [](Node& node, std::int64_t) { return Lines{dynamic_cast<T&>(node).dim}; }};
}

template <typename T>
std::pair<const std::type_index, LinesOf> along_dims() {
  return {typeid(T), [](Node& node, std::int64_t) { return Lines(dynamic_cast<T&>(node).dim); }};
}

Lines every_dim(std::int64_t dims) {
  Lines all;
  for (std::int64_t dim = 0; dim < dims; ++dim) all.push_back(dim);
  return all;
}

template <typename T>
std::pair<const std::type_index, LinesOf> over_all() {
  return {typeid(T), [](Node&, std::int64_t dims) { return every_dim(dims); }};
}

const std::unordered_map<std::type_index, LinesOf>& known_gates() {
  static const std::unordered_map<std::type_index, LinesOf> all{
      elementwise<ReluBackward0>(),      elementwise<LeakyReluBackward0>(),  elementwise<ThresholdBackward0>(),    elementwise<HardtanhBackward0>(),
      elementwise<HardsigmoidBackward0>(), elementwise<HardswishBackward0>(), elementwise<AbsBackward0>(),         elementwise<ClampBackward0>(),
      elementwise<ClampBackward1>(),     elementwise<ClampMinBackward0>(),   elementwise<ClampMinBackward1>(),     elementwise<ClampMaxBackward0>(),
      elementwise<ClampMaxBackward1>(),  elementwise<MaximumBackward0>(),    elementwise<MinimumBackward0>(),      elementwise<FmaxBackward0>(),
      elementwise<FminBackward0>(),      elementwise<SmoothL1LossBackward0>(), elementwise<HuberLossBackward0>(),  elementwise<SoftshrinkBackward0>(),
      elementwise<HardshrinkBackward0>(), elementwise<PreluKernelBackward0>(), elementwise<RemainderBackward0>(),  elementwise<FmodBackward0>(),
      along_dim<MaxBackward0>(),         along_dim<MinBackward0>(),          along_dim<TopkBackward0>(),           along_dim<SortBackward0>(),
      along_dim<SortBackward1>(),        along_dim<KthvalueBackward0>(),     along_dim<MedianBackward1>(),         along_dim<NanmedianBackward1>(),
      along_dim<ModeBackward0>(),        along_dim<CummaxBackward0>(),       along_dim<CumminBackward0>(),         along_dims<AmaxBackward0>(),
      along_dims<AminBackward0>(),       over_all<MaxBackward1>(),           over_all<MinBackward1>(),             over_all<MedianBackward0>(),
      over_all<NanmedianBackward0>(),
  };
  return all;
}

/// One gate: its inputs that are on record, by their place in a common list, and the shape that they broadcast to.
struct Gate {
  const Node* node;
  std::vector<std::size_t> inputs;
  std::vector<std::int64_t> sizes;
  Lines lines;
};

struct Gates {
  std::vector<Gate> gates;
  std::vector<Edge> inputs;
};

Gates gates_of(const std::vector<NodePtr>& nodes) {
  Gates found;
  for (const NodePtr& node : nodes) {
    const auto known = known_gates().find(typeid(*node));
    if (known == known_gates().end()) continue;
    Gate gate{node.get(), {}, {}, {}};
    for (const Edge& edge : node->next_edges()) {
      if (!edge.is_valid()) continue;
      gate.inputs.push_back(found.inputs.size());
      found.inputs.push_back(edge);
      gate.sizes = at::infer_size(gate.sizes, edge_sizes(edge));
    }
    if (gate.inputs.empty()) continue;
    const auto dims = static_cast<std::int64_t>(gate.sizes.size());
    gate.lines = known->second(*node, dims);
    if (known->first == typeid(AmaxBackward0) || known->first == typeid(AminBackward0)) {
      if (gate.lines.empty()) gate.lines = every_dim(dims);
    }
    for (std::int64_t& dim : gate.lines) dim = dim < 0 ? dim + dims : dim;
    found.gates.push_back(std::move(gate));
  }
  return found;
}

variable_list run(const std::vector<Edge>& roots, const variable_list& seeds, const std::vector<Edge>& ends, bool create_graph) {
  return torch::autograd::Engine::get_default_engine().execute(roots, seeds, /*keep_graph=*/true, create_graph, /*accumulate_grad=*/false, ends);
}

at::Tensor normal(at::IntArrayRef sizes, at::Generator& generator, const at::TensorOptions& options) {
  return at::randn(sizes, generator, at::TensorOptions().dtype(at::kFloat)).to(options);
}

/// J v, for every input of a gate, as functions of what lives on the outputs.
class Movements {
 public:
  Movements(const Gates& gates, const std::vector<WatchedOutput>& outputs, std::int64_t batch)
      : outputs_(outputs), batch_(batch), generator_(at::detail::createCPUGenerator(0x3c6ef372)) {
    std::vector<Edge> ends;
    for (const WatchedOutput& output : outputs) ends.push_back(output.edge);
    for (const Edge& edge : gates.inputs) {
      const auto& metadata = edge.function->input_metadata(edge.input_nr);
      seeds_.push_back(normal(edge_sizes(edge), generator_, at::TensorOptions().dtype(metadata.dtype()).device(metadata.device())).requires_grad_(true));
      leaves_.push_back(torch::autograd::impl::gradient_edge(seeds_.back()));
    }
    at::AutoGradMode with_graph(true);
    first_ = run(gates.inputs, variable_list(seeds_.begin(), seeds_.end()), ends, true);
  }

  /// Which entries of each gate's input the chosen samples move: undefined for none.
  std::vector<at::Tensor> moved_by(const at::Tensor& chosen) {
    std::vector<Edge> starts;
    variable_list vectors;
    const at::Tensor others = chosen.logical_not().nonzero().squeeze(1);
    for (std::size_t i = 0; i < first_.size(); ++i) {
      const at::Tensor& g = first_[i];
      if (!g.defined() || !g.requires_grad()) continue;
      at::Tensor vector = normal(g.sizes(), generator_, g.options().requires_grad(false));
      by_sample(vector, outputs_[i].map, batch_).index_fill_(0, others.to(g.device()), 0);
      starts.push_back(torch::autograd::impl::gradient_edge(g));
      vectors.push_back(std::move(vector));
    }
    std::vector<at::Tensor> moved(leaves_.size());
    if (starts.empty()) return moved;
    const variable_list found = run(starts, vectors, leaves_, false);
    for (std::size_t i = 0; i < found.size(); ++i) {
      if (found[i].defined()) moved[i] = found[i].detach().ne(0).logical_and(found[i].detach().isfinite());
    }
    return moved;
  }

 private:
  const std::vector<WatchedOutput>& outputs_;
  std::int64_t batch_;
  at::Generator generator_;
  std::vector<at::Tensor> seeds_;
  std::vector<Edge> leaves_;
  variable_list first_;
};

at::Tensor moved_lines(const Gate& gate, const std::vector<at::Tensor>& moved) {
  at::Tensor all = at::zeros(gate.sizes, at::kBool);
  for (std::size_t input : gate.inputs) {
    if (moved[input].defined()) all = all.logical_or(moved[input].cpu().expand(gate.sizes));
  }
  for (std::int64_t dim : gate.lines) all = all.any(dim, true);
  return all;
}

}  // namespace

std::optional<std::string> coupling_gate(const std::vector<NodePtr>& nodes, const std::vector<WatchedOutput>& outputs, std::int64_t batch) {
  const Gates found = gates_of(nodes);
  if (found.gates.empty()) return std::nullopt;
  Movements movements(found, outputs, batch);
  const int bits = static_cast<int>(std::bit_width(static_cast<std::uint64_t>(batch - 1)));
  for (int bit = 0; bit < bits; ++bit) {
    const auto with = movements.moved_by(samples_with_bit(batch, bit, true)), without = movements.moved_by(samples_with_bit(batch, bit, false));
    for (const Gate& gate : found.gates) {
      if (moved_lines(gate, with).logical_and(moved_lines(gate, without)).any().item<bool>()) return gate.node->name();
    }
  }
  return std::nullopt;
}

std::optional<std::string> counted_selection(const std::vector<NodePtr>& nodes, std::int64_t batch) {
  bool mean = false;
  const Node* selection = nullptr;
  for (const NodePtr& node : nodes) {
    mean = mean || dynamic_cast<MeanBackward0*>(node.get()) || dynamic_cast<MeanBackward1*>(node.get());
    const bool masked = dynamic_cast<MaskedSelectBackward0*>(node.get()) != nullptr;
    if (masked || (dynamic_cast<IndexBackward0*>(node.get()) && !row_stays(*node, batch))) selection = node.get();
  }
  if (!mean || !selection) return std::nullopt;
  return selection->name();
}

}  // namespace hushgrad
