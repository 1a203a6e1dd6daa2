#include <algorithm>
#include <array>

#include "dpcore/error.h"
#include "torch_ext/rules/rule.h"

namespace hushgrad {
namespace {

// In order of how often networks use them; the generic rule comes last and takes everything.
constexpr std::array kRules = {
    ragged_linear_rule, linear_rule,    convolution_rule, layer_norm_rule, group_norm_rule, embedding_rule,
    broadcast_rule, product_rule,     lstm_rule,       generic_rule,
};

// Of these any row may belong to any sample, and values may be complex.
constexpr std::array kGeneralRules = {layer_norm_rule, embedding_rule, broadcast_rule, generic_rule};

// Rows that no output depends on may carry nothing: a value there would be nobody's.
void check_unowned(const SiteView& view) {
  for (std::size_t i = 0; i < view.backprops.size(); ++i) {
    const auto& ragged = view.maps[i].ragged;
    if (!view.flows(i) || !ragged || ragged->unowned.numel() == 0) continue;
    const at::Tensor rows = view.backprops[i].detach().index_select(view.maps[i].dim, ragged->unowned.to(view.backprops[i].device()));
    if (!rows.ne(0).any().item<bool>()) continue;
    throw Unsupported(message("[backward] Expected every row at ", describe(view.site, view.parameters), " to belong to one sample of the batch, "
                              "received some that could not be told apart. Make the inputs finite (torch.nan_to_num), or rewrite the "
                              "selection of rows with a mask."));
  }
}

bool has_empty_rows(const SiteView& view) {
  for (std::size_t i = 0; i < view.backprops.size(); ++i) {
    if (view.flows(i) && view.backprops[i].numel() > 0) return false;
  }
  return true;
}

bool is_any_complex(const SiteView& view) {
  for (std::size_t i = 0; i < view.backprops.size(); ++i) {
    if (view.flows(i) && view.backprops[i].is_complex()) return true;
  }
  return false;
}

bool is_any_ragged(const SiteView& view) {
  for (const RowMap& map : view.maps) {
    if (map.ragged) return true;
  }
  return false;
}

}  // namespace

Contributions apply_rules(const SiteView& view) {
  Contributions out(view.site.uses.size());
  if (has_empty_rows(view)) return out;
  const bool ragged = is_any_ragged(view);
  if (ragged) check_unowned(view);
  const bool only_general = ragged || is_any_complex(view);
  for (Rule rule : kRules) {
    const bool general = std::find(kGeneralRules.begin(), kGeneralRules.end(), rule) != kGeneralRules.end();
    if (only_general && !general && !(ragged && rule == ragged_linear_rule)) continue;
    if (rule(view, out)) break;
    for (auto& contribution : out) contribution.reset();
  }
  return out;
}

at::Tensor apply_for_use(const SiteView& view, const Use& use, const variable_list& backprops) {
  // The edges of private parameters are cut by now; this one is put back for the call, all others are taken away so
  // that nothing else is computed.
  Node& node = view.node();
  const auto edges = node.next_edges();
  struct Restore {
    Node& node;
    const torch::autograd::edge_list& saved;
    ~Restore() { set_edges(node, saved); }
  } restore{node, edges};
  torch::autograd::edge_list alone(edges.size());
  alone[use.edge] = use.boundary;
  set_edges(node, alone);
  return node(variable_list(backprops)).at(use.edge);
}

at::Tensor unpack_once(torch::autograd::SavedVariable& saved, NodePtr saved_for) {
  at::Tensor tensor = saved.unpack(std::move(saved_for));
  if (saved.has_hooks()) saved = torch::autograd::SavedVariable(tensor.detach(), /*is_output=*/false);
  return tensor;
}

std::unique_ptr<Contribution> reduce_broadcast(const at::Tensor& unreduced, const RowMap& map, std::int64_t batch,
                                               at::IntArrayRef boundary) {
  // unreduced: [.., batch*m, ..]; boundary is aligned to it from the right.
  if (map.dim < 0) return std::make_unique<Instantiated>(unreduced.sum_to_size(boundary).unsqueeze(0));
  const std::int64_t lead = unreduced.dim() - static_cast<std::int64_t>(boundary.size());
  if (lead < 0) return nullptr;
  if (map.dim >= lead && boundary[map.dim - lead] != 1) {
    if (batch != 1) return nullptr;
    return std::make_unique<Instantiated>(at_least_float(unreduced).sum_to_size(boundary).unsqueeze(0));
  }
  // [B, m, rest...] with rest = unreduced's dimensions without map.dim; everything that the boundary lacks is summed.
  const at::Tensor rows = by_sample(unreduced, map, batch);
  std::vector<std::int64_t> summed{1};
  for (std::int64_t dim = 0, at = 2; dim < unreduced.dim(); ++dim) {
    if (dim == map.dim) continue;
    if (dim < lead || (boundary[dim - lead] == 1 && unreduced.size(dim) != 1)) summed.push_back(at);
    ++at;
  }
  const bool stays = unreduced.scalar_type() == at::kDouble || unreduced.is_complex();
  const auto type = stays ? unreduced.scalar_type() : at::kFloat;
  std::vector<std::int64_t> shape{batch};
  shape.insert(shape.end(), boundary.begin(), boundary.end());
  const bool nothing_to_sum = summed.size() == 1 && rows.size(1) == 1 && unreduced.scalar_type() == type;
  return std::make_unique<Instantiated>((nothing_to_sum ? rows : rows.sum(summed, false, type)).reshape(shape));
}

std::string describe(const Site& site, const ParameterIndex& parameters) {
  std::string text = site.node->name();
  for (const Use& use : site.uses) {
    if (use.parameter < 0) continue;
    return text + " (parameter '" + parameters.name(static_cast<std::size_t>(use.parameter)) + "')";
  }
  return text;
}

}  // namespace hushgrad
