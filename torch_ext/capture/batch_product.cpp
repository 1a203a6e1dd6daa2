#include "torch_ext/capture/batch_product.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

namespace hushgrad {
namespace {

/// Operators that let a dimension of 1 stand for any number, and products with one of their operands a column.
bool broadcasts(std::string_view name) {
  static constexpr std::array<std::string_view, 25> names{
      "Add",   "Addcdiv", "Addcmul", "Atan2",   "Baddbmm", "Bmm",     "Copysign", "Div",  "Expand", "Fmax",  "Fmin",   "Fmod", "Hypot",
      "Lerp",  "Logaddexp", "Maximum", "Minimum", "Mm",      "Mul",     "Pow",      "Repeat", "Rsub", "Sub",   "Where",  "Xlogy"};
  const std::string_view stem = name.substr(0, name.find("Backward"));
  return std::find(names.begin(), names.end(), stem) != names.end();
}

/// Whether `from`, of at least one value a sample, has a dimension of 1 (or none) where `to` has one of the batch's length.
bool is_spread(at::IntArrayRef from, at::IntArrayRef to, std::int64_t batch) {
  const auto count = c10::multiply_integers(from);
  if (count == 0 || count % batch != 0 || from.size() > to.size()) return false;
  const std::size_t missing = to.size() - from.size();
  for (std::size_t dim = 0; dim < to.size(); ++dim) {
    if (to[dim] == batch && (dim < missing || from[dim - missing] == 1)) return true;
  }
  return false;
}

at::IntArrayRef shape_of(const Node& node) { return C10_AS_INTARRAYREF_SLOW(node.input_metadata(0).shape_as_dim_vector()); }

bool spreads(const Node& node, std::int64_t batch) {
  if (node.num_inputs() != 1 || !broadcasts(node.name())) return false;
  for (const Edge& edge : node.next_edges()) {
    if (!edge.is_valid() || edge.input_nr >= edge.function->num_inputs()) continue;
    const auto from = C10_AS_INTARRAYREF_SLOW(edge.function->input_metadata(edge.input_nr).shape_as_dim_vector());
    if (is_spread(from, shape_of(node), batch)) return true;
  }
  return false;
}

/// Takes something that does not come from the outputs.
bool takes_constant(const Node& node) {
  const auto& edges = node.next_edges();
  return edges.size() > 1 && std::any_of(edges.begin(), edges.end(), [](const Edge& edge) { return !edge.is_valid(); });
}

using Users = std::unordered_map<const Node*, std::vector<const Node*>>;

/// Whether what the node gave meets a constant before it meets other outputs or becomes smaller.
bool meets_constant(const Node& node, const Users& users) {
  std::vector<const Node*> open{&node};
  std::unordered_set<const Node*> seen;
  while (!open.empty()) {
    const Node* at = open.back();
    open.pop_back();
    const auto found = users.find(at);
    if (!seen.insert(at).second || found == users.end()) continue;
    for (const Node* user : found->second) {
      if (takes_constant(*user)) return true;
      const bool alone = user->next_edges().size() == 1 && user->num_inputs() == 1;
      if (alone && c10::multiply_integers(shape_of(*user)) >= c10::multiply_integers(shape_of(*at))) open.push_back(user);
    }
  }
  return false;
}

}  // namespace

std::optional<std::string> batch_product(const std::vector<NodePtr>& nodes, std::int64_t batch) {
  Users users;
  for (const NodePtr& node : nodes) {
    for (const Edge& edge : node->next_edges()) users[edge.function.get()].push_back(node.get());
  }
  for (const NodePtr& node : nodes) {
    if (!spreads(*node, batch)) continue;
    const bool is_alone = node->next_edges().size() == 1;
    if (is_alone ? meets_constant(*node, users) : takes_constant(*node)) return node->name();
  }
  return std::nullopt;
}

}  // namespace hushgrad
