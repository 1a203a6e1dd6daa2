#include "torch_ext/capture/prober.h"

#include <ATen/CPUGeneratorImpl.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <atomic>
#include <bit>
#include <unordered_map>

namespace hushgrad {
namespace {

std::optional<RowMap> output_map(const at::Tensor& output, std::int64_t batch, bool batch_first) {
  const std::int64_t dim = batch_first ? 0 : 1;
  if (output.dim() > dim && output.size(dim) == batch) return RowMap{dim, true};
  if (batch_first && output.dim() > 0 && output.size(0) > 0 && output.size(0) % batch == 0) return RowMap{0, true};
  // States of recurrent layers are [layers, B, H] whatever batch_first says. A wrong guess does not survive the probes.
  if (batch_first && output.dim() > 1 && output.size(1) == batch) return RowMap{1, true};
  if (!batch_first && output.dim() > 0 && output.size(0) > 0 && output.size(0) % batch == 0) return RowMap{0, false};
  return std::nullopt;
}

// Probes must not move the user's random stream, and need no secret: any generic values do.
at::Tensor random_seed(const at::Tensor& like, at::Generator& generator) {
  return at::randn(like.sizes(), generator, at::TensorOptions().dtype(at::kFloat)).to(like.device(), like.scalar_type());
}

using See = std::function<void(std::size_t, const at::Tensor&, std::size_t)>;

std::atomic<int> probes_running{0};

struct ProbeHook final : torch::autograd::FunctionPreHook {
  ProbeHook(std::vector<std::pair<std::uint32_t, std::size_t>> inputs, const See& see, const std::size_t& number)
      : inputs(std::move(inputs)), see(see), number(number) {}
  variable_list operator()(const variable_list& backprops) override {
    for (const auto& [nr, target] : inputs) {
      if (backprops[nr].defined()) see(target, backprops[nr], number);
    }
    return backprops;
  }
  std::vector<std::pair<std::uint32_t, std::size_t>> inputs;  // (input of the node, target)
  const See& see;
  const std::size_t& number;
};

/// Hooks on the targets' nodes and leaves out of reach, for as long as a series of probes takes.
class ProbedGraph {
 public:
  ProbedGraph(const Walk& walk, const ProbeTargets& targets, const See& see, const std::size_t& number) {
    for (const NodePtr& node : walk.nodes) {
      for (std::uint32_t i = 0; i < node->num_outputs(); ++i) {
        const Edge edge = node->next_edge(i);
        if (!edge.is_valid() || edge.function->num_outputs() > 0) continue;  // only leaves lead nowhere
        cut_.push_back({node, i, edge});
        node->next_edges()[i] = Edge();
      }
    }
    std::unordered_map<Node*, std::vector<std::pair<std::uint32_t, std::size_t>>> by_node;
    for (std::size_t t = 0; t < targets.size(); ++t) by_node[targets[t].function.get()].push_back({targets[t].input_nr, t});
    for (auto& [node, inputs] : by_node) {
      auto hook = std::make_unique<ProbeHook>(std::move(inputs), see, number);
      hooked_.push_back({node, hook.get()});
      node->add_pre_hook(std::move(hook));
    }
  }
  ~ProbedGraph() {
    for (const auto& [node, hook] : hooked_) {
      std::erase_if(node->pre_hooks(), [hook = hook](const auto& other) { return other.get() == hook; });
    }
    for (const Cut& c : cut_) c.node->next_edges()[c.index] = c.edge;
  }

 private:
  struct Cut {
    NodePtr node;
    std::uint32_t index;
    Edge edge;
  };
  ProbingScope probing_;
  std::vector<Cut> cut_;
  std::vector<std::pair<Node*, const torch::autograd::FunctionPreHook*>> hooked_;
};

void run_probe(const std::vector<ProbedOutput>& outputs, std::int64_t batch, const at::Tensor& factors) {
  at::Generator generator = at::detail::createCPUGenerator(0x9e3779b9);
  std::vector<Edge> roots;
  variable_list seeds;
  for (const ProbedOutput& output : outputs) {
    at::Tensor seed = random_seed(output.tensor, generator);
    at::Tensor rows = by_sample(seed, output.map, batch);
    std::vector<std::int64_t> shape(rows.dim(), 1);
    shape[0] = batch;
    rows.mul_(factors.to(seed.device(), seed.scalar_type()).view(shape));
    roots.push_back(torch::autograd::impl::gradient_edge(output.tensor));
    seeds.push_back(std::move(seed));
  }
  torch::autograd::Engine::get_default_engine().execute(roots, seeds, /*keep_graph=*/true, /*create_graph=*/false,
                                                        /*accumulate_grad=*/true);
}

}  // namespace

at::Tensor samples_with_bit(std::int64_t batch, int bit, bool value) {
  at::Tensor seeded = at::empty({batch}, at::kBool);
  for (std::int64_t b = 0; b < batch; ++b) seeded.data_ptr<bool>()[b] = (((b >> bit) & 1) != 0) == value;
  return seeded;
}

std::vector<ProbedOutput> batched_outputs(const std::vector<at::Tensor>& outputs, std::int64_t batch, bool batch_first) {
  std::vector<ProbedOutput> result;
  for (const at::Tensor& output : outputs) {
    if (auto map = output_map(output, batch, batch_first)) result.push_back({output, *map});
  }
  return result;
}

bool is_probing() { return probes_running > 0; }

ProbingScope::ProbingScope() { ++probes_running; }
ProbingScope::~ProbingScope() { --probes_running; }

void probe_scaled(const std::vector<ProbedOutput>& outputs, std::int64_t batch, const Walk& walk, const ProbeTargets& targets,
                  const std::vector<at::Tensor>& factors, const See& see) {
  std::size_t number = 0;
  const ProbedGraph graph(walk, targets, see, number);
  for (; number < factors.size(); ++number) run_probe(outputs, batch, factors[number]);
}

void probe(const std::vector<ProbedOutput>& outputs, std::int64_t batch, const Walk& walk, const ProbeTargets& targets,
           const std::function<void(std::size_t, const at::Tensor&, const at::Tensor&)>& see) {
  std::vector<at::Tensor> seeded, factors;
  const int bits = std::bit_width(static_cast<std::uint64_t>(batch - 1));
  for (int bit = 0; bit < bits; ++bit) {
    for (bool value : {true, false}) {
      seeded.push_back(samples_with_bit(batch, bit, value));
      factors.push_back(seeded.back().to(at::kFloat));
    }
  }
  probe_scaled(outputs, batch, walk, targets, factors,
               [&](std::size_t target, const at::Tensor& backprop, std::size_t number) { see(target, backprop, seeded[number]); });
}

std::string name_the_mixer(const std::vector<ProbedOutput>& outputs, std::int64_t batch, const Walk& walk) {
  ProbeTargets targets;
  std::vector<std::size_t> position;
  for (std::size_t i = 0; i < walk.nodes.size(); ++i) {
    for (std::uint32_t nr = 0; nr < walk.nodes[i]->num_inputs(); ++nr) {
      targets.push_back(Edge(walk.nodes[i], nr));
      position.push_back(i);
    }
  }
  enum class State { unknown, separate, mixed };
  std::vector<State> states(walk.nodes.size(), State::unknown);
  std::vector<std::vector<RowMap>> survivors(targets.size());
  std::vector<char> started(targets.size(), false);
  probe(outputs, batch, walk, targets, [&](std::size_t t, const at::Tensor& backprop, const at::Tensor& seeded) {
    RowEvidence evidence(started[t] ? survivors[t] : candidate_maps(backprop.sizes(), batch));
    started[t] = true;
    evidence.observe(backprop, seeded);
    survivors[t] = evidence.survivors();
    const State now = evidence.refuted() ? State::mixed : State::separate;
    if (states[position[t]] != State::mixed) states[position[t]] = now;
  });
  // Parents come before children in the walk, so the first parent that separates what a child mixes is the culprit.
  std::unordered_map<const Node*, std::size_t> index;
  for (std::size_t i = 0; i < walk.nodes.size(); ++i) index.emplace(walk.nodes[i].get(), i);
  for (std::size_t i = 0; i < walk.nodes.size(); ++i) {
    if (states[i] != State::separate) continue;
    for (const Edge& edge : walk.nodes[i]->next_edges()) {
      if (!edge.is_valid()) continue;
      const std::size_t child = index.at(edge.function.get());
      if (states[child] == State::mixed && !walk.only_parameters[child]) return walk.nodes[i]->name();
    }
  }
  return "an operator";
}

}  // namespace hushgrad
