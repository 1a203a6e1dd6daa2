// Everything that differs between the torch releases hushgrad compiles against (2.11 to 2.14) lives here.
#pragma once

#include <torch/csrc/autograd/edge.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/tensor.h>

#include <utility>

namespace hushgrad {

using torch::autograd::Edge;
using torch::autograd::Node;
using torch::autograd::variable_list;

/// c10::intrusive_ptr<Node> since 2.13, std::shared_ptr<Node> before.
using NodePtr = decltype(std::declval<Edge>().function);

/// Where the node's gradients go. A write into a view keeps its edges twice, once in the operator that wrote.
inline void set_edges(Node& node, const torch::autograd::edge_list& edges) {
  node.next_edges() = edges;
  auto* write = dynamic_cast<torch::autograd::CopySlices*>(&node);
  if (!write || !write->fn) return;
  // Its first edge is the view's own and leads nowhere.
  for (std::size_t i = 1; i < edges.size(); ++i) write->fn->next_edges()[i] = edges[i];
}

}  // namespace hushgrad
