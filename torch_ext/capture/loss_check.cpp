#include "torch_ext/capture/loss_check.h"

#include <ATen/CPUGeneratorImpl.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/generated/Functions.h>
#include <torch/csrc/autograd/variable.h>

#include <bit>
#include <string_view>
#include <typeinfo>
#include <unordered_map>

#include "dpcore/error.h"
#include "torch_ext/capture/batch_product.h"
#include "torch_ext/capture/gates.h"
#include "torch_ext/capture/prober.h"
#include "torch_ext/capture/rowwise_loss.h"

namespace hushgrad {
namespace {

using namespace torch::autograd::generated;

constexpr const char* kAdvice =
    " Give each sample a loss of its own and take the mean (or sum) of those at the very end; hushgrad.losses has such forms.";

[[noreturn]] void refuse(const std::string& received) {
  throw Unsupported(message("[backward] Expected a loss that is the mean or sum of one loss a sample, received ", received, ".", kAdvice));
}

std::uint64_t mixed(std::uint64_t hash, std::uint64_t value) {
  return hash ^ (value + 0x9e3779b97f4a7c15ULL + (hash << 6) + (hash >> 2));
}

/// The part of the graph between the losses and the outputs.
struct LossGraph {
  std::vector<NodePtr> nodes;
  std::vector<WatchedOutput> outputs;  // that the loss uses itself
  std::uint64_t signature = 0;
  std::string opaque;          // a custom function's name: what it computes on is not on record
  const Node* bypass = nullptr;  // a site that the loss reaches beside the outputs
};

LossGraph walk(const std::vector<Edge>& roots, const std::vector<WatchedOutput>& outputs, const LossCheck::IsSite& is_site) {
  std::unordered_map<const Node*, std::size_t> position, ends;
  for (std::size_t i = 0; i < outputs.size(); ++i) ends.emplace(outputs[i].edge.function.get(), i);
  LossGraph graph;
  std::vector<char> used(outputs.size(), false);
  const auto enter = [&](const Edge& edge) {
    graph.signature = mixed(graph.signature, edge.input_nr);
    if (!edge.is_valid()) return;
    if (const auto end = ends.find(edge.function.get()); end != ends.end()) {
      if (!used[end->second]) graph.outputs.push_back(outputs[end->second]);
      used[end->second] = true;
      graph.signature = mixed(graph.signature, 1 + end->second);
      return;
    }
    const auto [at, is_new] = position.emplace(edge.function.get(), graph.nodes.size());
    graph.signature = mixed(graph.signature, 0x10000 + at->second);
    if (is_new) graph.nodes.push_back(edge.function);
  };
  for (const Edge& root : roots) enter(root);
  for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
    const NodePtr node = graph.nodes[i];
    graph.signature = mixed(graph.signature, typeid(*node).hash_code());
    const std::string_view type = typeid(*node).name();
    if (type.find("PyNode") != type.npos || type.find("CppNode") != type.npos) graph.opaque = node->name();
    if (is_site(node.get())) {
      graph.bypass = node.get();
      return graph;
    }
    for (const Edge& edge : node->next_edges()) enter(edge);
  }
  return graph;
}

/// Whether every sample keeps as many targets. target: [B, ...], [B*T] or, batch second, [T*B].
bool keeps_alike(const at::Tensor& kept, const RowMap& output, std::int64_t batch) {
  if (kept.numel() % batch != 0) return false;
  const bool minor = output.dim == 1 && kept.dim() == 1;
  const RowMap map{kept.dim() > 1 ? std::min(output.dim, kept.dim() - 1) : 0, !minor};
  if (!allows(kept.sizes(), map, batch)) return false;
  const at::Tensor counts = by_sample(kept, map, batch).reshape({batch, -1}).sum(1);
  return counts.eq(counts[0]).all().item<bool>();
}

template <typename NllNode>
void refuse_counted_mean(NllNode* node, const RowMap& output, std::int64_t batch) {
  if (!node || node->reduction != at::Reduction::Mean) return;
  if (node->weight_.unpack().defined()) {
    refuse("a cross entropy with class weights and reduction=\"mean\", which divides by the weights of all samples' targets");
  }
  const at::Tensor kept = node->target_.unpack().ne(node->ignore_index.guard_int(__FILE__, __LINE__));
  if (kept.all().template item<bool>() || keeps_alike(kept, output, batch)) return;
  refuse("a cross entropy with ignored targets and reduction=\"mean\", which divides by the kept targets of all samples together");
}

// The divisor of these is a number by the time of the backward pass, so that no derivative shows it.
void refuse_counted_means(const LossGraph& graph, std::int64_t batch) {
  for (const NodePtr& node : graph.nodes) {
    refuse_counted_mean(dynamic_cast<NllLossBackward0*>(node.get()), graph.outputs[0].map, batch);
    refuse_counted_mean(dynamic_cast<NllLoss2DBackward0*>(node.get()), graph.outputs[0].map, batch);
  }
}

/// The outputs are the variables: nothing behind them is differentiated while this lives.
class CutBehind {
 public:
  explicit CutBehind(const std::vector<WatchedOutput>& outputs) {
    for (const WatchedOutput& output : outputs) {
      edges_.emplace_back(output.edge.function, output.edge.function->next_edges());
      for (Edge& edge : output.edge.function->next_edges()) edge = Edge();
    }
  }
  ~CutBehind() {
    // Backwards: of a node that is here twice, the first copy holds its edges.
    for (auto it = edges_.rbegin(); it != edges_.rend(); ++it) it->first->next_edges() = it->second;
  }
  CutBehind(const CutBehind&) = delete;
  CutBehind& operator=(const CutBehind&) = delete;

 private:
  std::vector<std::pair<NodePtr, torch::autograd::edge_list>> edges_;
};

variable_list run(const std::vector<Edge>& roots, const variable_list& seeds, const std::vector<Edge>& ends, bool create_graph) {
  return torch::autograd::Engine::get_default_engine().execute(roots, seeds, /*keep_graph=*/true, create_graph, /*accumulate_grad=*/false, ends);
}

/// Whether every product of the Hessian with a vector on some samples stays on those samples.
bool is_block_diagonal(const std::vector<Edge>& roots, const variable_list& seeds, const std::vector<WatchedOutput>& outputs, std::int64_t batch) {
  at::AutoGradMode with_graph(true);
  std::vector<Edge> ends;
  for (const WatchedOutput& output : outputs) ends.push_back(output.edge);
  const variable_list first = run(roots, seeds, ends, true);

  at::Generator generator = at::detail::createCPUGenerator(0x51ed270b);
  const int bits = static_cast<int>(std::bit_width(static_cast<std::uint64_t>(batch - 1)));
  for (int bit = 0; bit < bits; ++bit) {
    for (bool value : {true, false}) {
      const at::Tensor chosen = samples_with_bit(batch, bit, value);
      const at::Tensor others = chosen.logical_not().nonzero().squeeze(1);
      std::vector<Edge> starts;
      variable_list vectors;
      for (std::size_t i = 0; i < first.size(); ++i) {
        if (!first[i].defined() || !first[i].requires_grad()) continue;
        at::NoGradGuard no_grad;
        const at::Tensor& g = first[i];
        at::Tensor vector = at::randn(g.sizes(), generator, at::TensorOptions().dtype(at::kFloat)).to(g.device(), g.scalar_type());
        by_sample(vector, outputs[i].map, batch).index_fill_(0, others.to(g.device()), 0);
        starts.push_back(torch::autograd::impl::gradient_edge(g));
        vectors.push_back(std::move(vector));
      }
      if (starts.empty()) return true;  // linear in the outputs
      const variable_list second = run(starts, vectors, ends, false);
      for (std::size_t i = 0; i < second.size(); ++i) {
        if (!second[i].defined()) continue;
        RowEvidence evidence({outputs[i].map});
        evidence.observe(second[i], chosen);
        if (evidence.refuted()) return false;
      }
    }
  }
  return true;
}

}  // namespace

bool LossCheck::check(const std::vector<at::Tensor>& losses, const std::vector<at::Tensor>& gradients,
                      const std::vector<WatchedOutput>& outputs, std::int64_t batch, const IsSite& is_site) {
  std::vector<Edge> roots;
  variable_list seeds;
  for (std::size_t i = 0; i < losses.size(); ++i) {
    if (!losses[i].defined() || !losses[i].requires_grad()) continue;
    Edge root = torch::autograd::impl::gradient_edge(losses[i]);
    const bool given = i < gradients.size() && gradients[i].defined();
    if (!given && losses[i].numel() != 1) return false;  // backward() itself will say that it needs a gradient
    roots.push_back(std::move(root));
    seeds.push_back(given ? gradients[i].detach() : at::ones_like(losses[i]).detach());
  }
  const LossGraph graph = walk(roots, outputs, is_site);
  if (graph.bypass) {
    refuse(message("one that leads into the model beside its per-sample outputs, at ", graph.bypass->name()));
  }
  if (graph.outputs.empty()) return false;
  refuse_counted_means(graph, batch);
  if (batch < 2 || proven_.contains(graph.signature)) return true;

  if (!graph.opaque.empty() && !unchecked_) {
    refuse(message("one that cannot be checked, because it runs through the custom function ", graph.opaque,
                   "; if every sample has a loss of its own, say so with unchecked_loss=True"));
  }
  if (const auto selection = counted_selection(graph.nodes, batch)) {
    refuse(message("a mean over rows that a condition selects (", *selection, "), which divides by the kept rows of all samples together"));
  }
  if (const auto product = unchecked_ ? std::nullopt : batch_product(graph.nodes, batch)) {
    refuse(message("one that spreads a value of each sample over as many others as the batch has samples (", *product,
                   "): outputs [B, 1] and targets [B] make all pairs of both. Give them one shape (unsqueeze the targets, or squeeze the outputs); "
                   "where the other side is a constant that happens to be as long as this batch, say so with unchecked_loss=True"));
  }
  bool separate = true;
  std::optional<std::string> gate;
  try {
    const ProbingScope probing;
    const CutBehind cut(graph.outputs);
    const RowwiseLosses smooth(graph.nodes);
    separate = is_block_diagonal(roots, seeds, graph.outputs, batch);
    if (separate) gate = coupling_gate(graph.nodes, graph.outputs, batch);
  } catch (const std::exception& error) {
    if (!unchecked_) {
      const std::string reason = error.what();
      refuse(message("one that cannot be checked, because an operator of it has no second derivative (", reason.substr(0, reason.find('\n')),
                     "); if every sample has a loss of its own, say so with unchecked_loss=True"));
    }
  }
  if (!separate) refuse("one that couples the samples: a sample's gradient moves with another sample's output");
  if (gate) refuse(message("one in which ", *gate, " decides by one sample what another one's gradient is"));
  proven_.insert(graph.signature);
  return true;
}

}  // namespace hushgrad
