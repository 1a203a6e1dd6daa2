// Where a graph uses private parameters.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "torch_ext/compat.h"

namespace hushgrad {

/// The private parameters and how to recognise them as leaves of a graph. One small map, so that a graph that leads to
/// other tensors than the module holds (sharded training) needs a change here only.
class ParameterIndex {
 public:
  ParameterIndex(std::vector<at::Tensor> parameters, std::vector<std::string> names, std::vector<at::Tensor> ignored);

  /// Number of private parameters; their indices are below it. Ignored ones follow.
  std::size_t size() const { return private_; }
  bool ignored(std::int64_t i) const { return i >= static_cast<std::int64_t>(private_); }
  const at::Tensor& parameter(std::size_t i) const { return parameters_[i]; }
  const std::string& name(std::size_t i) const { return names_[i]; }
  /// AccumulateGrad node of parameter i; held here so that its hooks live as long as the capture.
  const NodePtr& accumulator(std::size_t i) const { return accumulators_[i]; }
  /// Index of the parameter this node accumulates into, or -1.
  std::int64_t find(const Node* node) const;

 private:
  std::size_t private_;
  std::vector<at::Tensor> parameters_;
  std::vector<std::string> names_;
  std::vector<NodePtr> accumulators_;
  std::unordered_map<const Node*, std::int64_t> by_node_;
};

/// One step from a boundary tensor towards its parameter: a node that only rearranges or selects values.
struct PathStep {
  NodePtr node;
  std::uint32_t input_nr;
};

/// One edge of a site that leads to private parameters.
struct Use {
  std::uint32_t edge;          // index among the site's next_edges
  Edge boundary;               // where that edge led before it was cut
  std::int64_t parameter;      // its parameter, or -1: a subgraph of parameters ("composite")
  std::vector<PathStep> path;  // from the boundary to the parameter; norm-preserving, without hooks, often empty
};

/// A node that computes on data and on private parameters.
struct Site {
  NodePtr node;
  std::size_t position;  // in the walk: the same for every graph with the same signature
  std::vector<Use> uses;
};

/// Positions of nodes that compute on parameters only (weight_norm, a LoRA merge), found by probing.
using Promotions = std::unordered_set<std::size_t>;

struct Walk {
  std::vector<NodePtr> nodes;   // in order of visit
  std::vector<char> only_parameters;  // per node: everything below it is parameters
  std::vector<Site> sites;
  std::uint64_t signature = 0;  // of types, edges and parameters; not of sizes
};

/// Walks every node that can be reached from the roots.
Walk walk_graph(const std::vector<Edge>& roots, const ParameterIndex& parameters, const Promotions& promotions);

/// gradient of the boundary -> gradient of the parameter.
at::Tensor follow_path(const Use& use, at::Tensor gradient);

/// Functions that will change or see the gradients of the node's outputs before it runs (`Tensor.register_hook`).
std::size_t hooks_before(const Node& node);

/// Sizes of the tensor whose gradient flows along the edge.
std::vector<std::int64_t> edge_sizes(const Edge& edge);

}  // namespace hushgrad
