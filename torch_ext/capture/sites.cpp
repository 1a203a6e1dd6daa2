#include "torch_ext/capture/sites.h"

#include <torch/csrc/autograd/functions/accumulate_grad.h>
#include <torch/csrc/autograd/variable.h>

#include <array>
#include <typeinfo>

#include "dpcore/error.h"

namespace hushgrad {
namespace {

// Operators that move values without changing, dropping twice or combining them: the l2 norm of a gradient is the same
// on both sides. Casts belong here because norms and sums are kept in float32 or better on our side.
constexpr std::array kIsometries = {
    "TBackward0",          "ViewBackward0",       "UnsafeViewBackward0",     "ReshapeAliasBackward0",
    "TransposeBackward0",  "PermuteBackward0",    "UnsqueezeBackward0",      "SqueezeBackward0",
    "SqueezeBackward1",    "SqueezeBackward2",    "AliasBackward0",          "CloneBackward0",
    "ToCopyBackward0",     "SliceBackward0",      "SelectBackward0",         "SplitBackward0",
    "SplitWithSizesBackward0", "UnbindBackward0", "NarrowBackward0",
};

bool is_isometry(const Node& node) {
  if (node.num_outputs() != 1) return false;
  // Names are built afresh on each call; the type is the cheap key.
  static thread_local std::unordered_map<std::size_t, bool> known;
  const std::size_t type = typeid(node).hash_code();
  if (auto it = known.find(type); it != known.end()) return it->second;
  const std::string name = node.name();
  const bool yes = std::find(kIsometries.begin(), kIsometries.end(), name) != kIsometries.end();
  known.emplace(type, yes);
  return yes;
}

void mix(std::uint64_t& hash, std::uint64_t value) {
  hash ^= value + 0x9e3779b97f4a7c15ULL + (hash << 6) + (hash >> 2);
}

class Walker {
 public:
  Walker(const ParameterIndex& parameters, const Promotions& promotions)
      : parameters_(parameters), promotions_(promotions) {}

  Walk run(const std::vector<Edge>& roots) {
    for (const Edge& root : roots) visit(root.function);
    for (std::size_t i = walk_.nodes.size(); i-- > 0;) classify(finished_[i]);
    for (std::size_t i = 0; i < walk_.nodes.size(); ++i) sign(i);
    collect();
    return std::move(walk_);
  }

 private:
  // Depth first without recursion: graphs of recurrent models are deeper than a stack. `finished_` is in reverse
  // post-order, so that a node comes after all that it leads to when walked from the back.
  void visit(const NodePtr& root) {
    if (!root || !enter(root)) return;
    struct Frame { Node* node; std::size_t next; };
    std::vector<Frame> stack{{root.get(), 0}};
    std::vector<std::size_t> order;
    while (!stack.empty()) {
      Frame& frame = stack.back();
      if (frame.next == frame.node->num_outputs()) {
        order.push_back(position_.at(frame.node));
        stack.pop_back();
        continue;
      }
      const NodePtr& next = frame.node->next_edge(frame.next++).function;
      if (next && enter(next)) stack.push_back({next.get(), 0});
    }
    // Later roots may lead to nodes of earlier ones, never the reverse: they go in front.
    finished_.insert(finished_.begin(), order.rbegin(), order.rend());
  }

  bool enter(const NodePtr& node) {
    if (!position_.emplace(node.get(), walk_.nodes.size()).second) return false;
    walk_.nodes.push_back(node);
    walk_.only_parameters.push_back(false);
    return true;
  }

  void classify(std::size_t position) {
    const Node& node = *walk_.nodes[position];
    if (parameters_.find(&node) >= 0) {
      walk_.only_parameters[position] = true;
      return;
    }
    if (!is_isometry(node) && !promotions_.contains(position)) return;
    bool any = false;
    for (const Edge& edge : node.next_edges()) {
      if (!edge.is_valid()) continue;
      if (!walk_.only_parameters[position_.at(edge.function.get())]) return;
      any = true;
    }
    walk_.only_parameters[position] = any;
  }

  void sign(std::size_t position) {
    const Node& node = *walk_.nodes[position];
    mix(walk_.signature, typeid(node).hash_code());
    mix(walk_.signature, static_cast<std::uint64_t>(parameters_.find(&node)));
    for (const Edge& edge : node.next_edges()) {
      mix(walk_.signature, edge.is_valid() ? position_.at(edge.function.get()) * 8 + edge.input_nr : ~0ULL);
    }
  }

  void collect() {
    for (std::size_t position = 0; position < walk_.nodes.size(); ++position) {
      if (walk_.only_parameters[position]) continue;
      const NodePtr& node = walk_.nodes[position];
      Site site{node, position, {}};
      for (std::uint32_t i = 0; i < node->num_outputs(); ++i) {
        const Edge& edge = node->next_edge(i);
        if (edge.is_valid() && walk_.only_parameters[position_.at(edge.function.get())]) site.uses.push_back(use(i, edge));
      }
      if (!site.uses.empty()) walk_.sites.push_back(std::move(site));
    }
  }

  Use use(std::uint32_t index, const Edge& boundary) const {
    Use result{index, boundary, -1, {}};
    Edge edge = boundary;
    while (true) {
      result.parameter = parameters_.find(edge.function.get());
      if (result.parameter >= 0) return result;
      // A real parameter made complex on the way: half of the boundary's gradient does not reach it.
      const bool is_complex = at::isComplexType(edge.function->input_metadata(edge.input_nr).dtype().toScalarType());
      // Hooks run where the engine does, as in a subgraph of parameters, and not along a path.
      if (is_complex || !is_isometry(*edge.function) || hooks_before(*edge.function) > 0 || !edge.function->post_hooks().empty()) {
        result.path.clear();
        return result;
      }
      result.path.push_back({edge.function, edge.input_nr});
      edge = edge.function->next_edge(0);
    }
  }

  const ParameterIndex& parameters_;
  const Promotions& promotions_;
  Walk walk_;
  std::unordered_map<const Node*, std::size_t> position_;
  std::vector<std::size_t> finished_;
};

}  // namespace

ParameterIndex::ParameterIndex(std::vector<at::Tensor> parameters, std::vector<std::string> names, std::vector<at::Tensor> ignored)
    : private_(parameters.size()), parameters_(std::move(parameters)), names_(std::move(names)) {
  for (at::Tensor& tensor : ignored) {
    parameters_.push_back(std::move(tensor));
    names_.emplace_back("(without a private optimizer)");
  }
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const at::Tensor& p = parameters_[i];
    if (!p.is_leaf() || !p.requires_grad()) {
      throw InvalidArgument(message("[parameters] Expected '", names_[i], "' to be a leaf that requires grad. Pass the module's "
                                    "trainable parameters; freeze others with requires_grad_(False)."));
    }
    if (p.is_complex()) {
      throw Unsupported(message("[parameters] Expected parameters of real numbers, received '", names_[i], "' of complex ones. Keep its real and "
                                "imaginary parts in a parameter with a last dimension of 2 and use torch.view_as_complex(parameter) in forward()."));
    }
    accumulators_.push_back(torch::autograd::impl::grad_accumulator(p));
    if (!by_node_.emplace(accumulators_.back().get(), static_cast<std::int64_t>(i)).second) {
      throw InvalidArgument(message("[parameters] Expected each parameter once, received '", names_[i], "' twice."));
    }
  }
}

std::int64_t ParameterIndex::find(const Node* node) const {
  const auto it = by_node_.find(node);
  return it == by_node_.end() ? -1 : it->second;
}

Walk walk_graph(const std::vector<Edge>& roots, const ParameterIndex& parameters, const Promotions& promotions) {
  return Walker(parameters, promotions).run(roots);
}

at::Tensor follow_path(const Use& use, at::Tensor gradient) {
  for (const PathStep& step : use.path) {
    if (step.node->name() == "ToCopyBackward0") continue;  // a cast: our sum keeps the better type
    variable_list inputs(step.node->num_inputs());
    inputs[step.input_nr] = std::move(gradient);
    gradient = (*step.node)(std::move(inputs)).at(0);
  }
  return gradient;
}

std::size_t hooks_before(const Node& node) {
  return node.pre_hooks().size() + const_cast<Node&>(node).tensor_pre_hooks().size();  // that accessor is not const
}

std::vector<std::int64_t> edge_sizes(const Edge& edge) {
  std::vector<std::int64_t> sizes;
  for (const auto& size : edge.function->input_metadata(edge.input_nr).shape_as_dim_vector()) {
    sizes.push_back(size.guard_int(__FILE__, __LINE__));
  }
  return sizes;
}

}  // namespace hushgrad
