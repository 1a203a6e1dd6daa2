// A rule turns what one node saved and the backprop that reaches it into per-sample contributions.
//
// To add an operator: one file with a function of type Rule, one line in rules.cpp, one test.
#pragma once

#include <torch/csrc/autograd/saved_variable.h>

#include <memory>
#include <vector>

#include "torch_ext/capture/contribution.h"
#include "torch_ext/capture/rows.h"
#include "torch_ext/capture/sites.h"

namespace hushgrad {

/// What a rule sees while the backward pass is at a site. Valid during that call only.
struct SiteView {
  const Site& site;
  const variable_list& backprops;   // one per output of the forward operator; undefined where nothing flows
  const std::vector<RowMap>& maps;  // one per backprop, proven
  std::int64_t batch;               // B >= 1
  const ParameterIndex& parameters;
  // A rule that had to compute the gradients along the node's other edges leaves them here, one an output of the node, and the
  // node does not run in this pass.
  variable_list& instead;

  Node& node() const { return *site.node; }
  bool flows(std::size_t i = 0) const { return backprops[i].defined(); }
};

/// One entry a use, in order of site.uses; null where nothing flows.
using Contributions = std::vector<std::unique_ptr<Contribution>>;

/// Fills `out` and returns true, or returns false if this node (or this case of it) is not the rule's.
using Rule = bool (*)(const SiteView& view, Contributions& out);

bool ragged_linear_rule(const SiteView& view, Contributions& out);  // addmm, mm on rows in no regular order
bool linear_rule(const SiteView& view, Contributions& out);       // addmm, mm
bool convolution_rule(const SiteView& view, Contributions& out);  // convolution 1d/2d/3d, transposed, grouped
bool embedding_rule(const SiteView& view, Contributions& out);
bool layer_norm_rule(const SiteView& view, Contributions& out);
bool group_norm_rule(const SiteView& view, Contributions& out);
bool broadcast_rule(const SiteView& view, Contributions& out);    // add, sub, mul, div, prelu, expand with a broadcast parameter
bool product_rule(const SiteView& view, Contributions& out);      // bmm, mv
bool lstm_rule(const SiteView& view, Contributions& out);         // the fused LSTM layer of the CPU
bool generic_rule(const SiteView& view, Contributions& out);      // any other operator: applied once per sample

/// Applies the first rule that takes the node; the generic rule takes all.
Contributions apply_rules(const SiteView& view);

/// Runs the node for one of its uses only and returns the gradient that would flow along that edge, before the engine
/// reduces it to the boundary's shape.
at::Tensor apply_for_use(const SiteView& view, const Use& use, const variable_list& backprops);

/// unreduced: the backprop's shape, batch where `map` says -> Instantiated [B, *boundary], or null if the boundary is not
/// broadcast along the batch.
std::unique_ptr<Contribution> reduce_broadcast(const at::Tensor& unreduced, const RowMap& map, std::int64_t batch,
                                               at::IntArrayRef boundary);

/// Unpacks a saved tensor for a rule and for the node's own turn after it: the hooks of activation checkpointing recompute
/// once a pass and refuse to do so twice.
at::Tensor unpack_once(torch::autograd::SavedVariable& saved, NodePtr saved_for = nullptr);

/// Names the use for messages: "AddmmBackward0 (parameter 'fc.weight')".
std::string describe(const Site& site, const ParameterIndex& parameters);

}  // namespace hushgrad
