#include "torch_ext/capture/later_hooks.h"

#include <unordered_set>

#include "dpcore/error.h"

namespace hushgrad {

void LaterHooks::note(const Walk& walk, const std::vector<Edge>& roots) {
  roots_.insert(roots_.end(), roots.begin(), roots.end());
  // A tensor's hook on an output that nothing else of the model uses belongs to the loss, whose check sees it.
  std::unordered_set<const Node*> outputs;
  for (const Edge& root : roots) outputs.insert(root.function.get());
  if (roots.size() > 1) {
    for (const NodePtr& node : walk.nodes) {
      for (const Edge& edge : node->next_edges()) outputs.erase(edge.function.get());
    }
  }
  for (std::size_t i = 0; i < walk.nodes.size(); ++i) {
    if (walk.only_parameters[i]) continue;  // behind cut edges: roots_ do not keep them alive, and their gradients are ours
    const Node* node = walk.nodes[i].get();
    const bool is_output = outputs.contains(node);
    hooks_.push_back({node, is_output, counted(*node, is_output)});
  }
}

std::size_t LaterHooks::counted(const Node& node, bool is_output) {
  return is_output ? node.pre_hooks().size() : hooks_before(node);
}

void LaterHooks::refuse_later() const {
  for (const auto& [node, is_output, count] : hooks_) {
    if (counted(*node, is_output) <= count) continue;
    throw Unsupported(message("[backward] Expected hooks on the model's tensors to be registered in its forward pass, where they are checked, received "
                              "one at ", node->name(), " that came later. Call register_hook inside forward()."));
  }
}

void LaterHooks::clear() {
  hooks_.clear();
  roots_.clear();
}

}  // namespace hushgrad
