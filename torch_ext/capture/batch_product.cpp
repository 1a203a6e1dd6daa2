#include "torch_ext/capture/batch_product.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <string_view>

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

}  // namespace

std::optional<std::string> batch_product(const std::vector<NodePtr>& nodes, std::int64_t batch) {
  for (const NodePtr& node : nodes) {
    const std::string name = node->name();
    if (node->num_inputs() != 1 || !broadcasts(name)) continue;
    const auto to = node->input_metadata(0).shape_as_dim_vector();
    for (const Edge& edge : node->next_edges()) {
      if (!edge.is_valid() || edge.input_nr >= edge.function->num_inputs()) continue;
      const auto from = edge.function->input_metadata(edge.input_nr).shape_as_dim_vector();
      if (is_spread(C10_AS_INTARRAYREF_SLOW(from), C10_AS_INTARRAYREF_SLOW(to), batch)) return name;
    }
  }
  return std::nullopt;
}

}  // namespace hushgrad
