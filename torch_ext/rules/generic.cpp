// The exact rule for every operator: an operator's gradient is linear in its backprop, so applied to the backprop masked
// to one sample it gives that sample's gradient. Costs B applications of the operator.
#include "dpcore/error.h"
#include "torch_ext/rules/rule.h"

namespace hushgrad {
namespace {

variable_list only_sample(const SiteView& view, std::int64_t b) {
  variable_list masked(view.backprops.size());
  for (std::size_t i = 0; i < masked.size(); ++i) {
    const at::Tensor& backprop = view.backprops[i];
    if (!backprop.defined()) continue;
    masked[i] = at::zeros_like(backprop);
    if (const auto& ragged = view.maps[i].ragged) {
      const at::Tensor rows = rows_of(*ragged, b).to(backprop.device());
      masked[i].index_copy_(view.maps[i].dim, rows, backprop.index_select(view.maps[i].dim, rows));
      continue;
    }
    by_sample(masked[i], view.maps[i], view.batch).select(0, b).copy_(
        by_sample(backprop, view.maps[i], view.batch).select(0, b));
  }
  return masked;
}

// What the node saved of a sample that is not finite reaches every other sample's gradient: 0 * NaN is NaN. One sample
// must not decide over all of them, so nothing comes of such a batch.
void refuse_leaks(const SiteView& view, const Use& use, const at::Tensor& gradients) {
  if (view.batch == 1 || gradients.isfinite().all().item<bool>()) return;
  variable_list nothing(view.backprops.size());
  for (std::size_t i = 0; i < nothing.size(); ++i) {
    if (view.backprops[i].defined()) nothing[i] = at::zeros_like(view.backprops[i]);
  }
  const at::Tensor leaked = apply_for_use(view, use, nothing);
  if (!leaked.defined() || leaked.isfinite().all().item<bool>()) return;
  throw Unsupported(message("[backward] Expected finite values at ", describe(view.site, view.parameters),
                            ", received NaN or infinity in some sample: of this operator no sample can be left out. Make the "
                            "inputs finite (torch.nan_to_num, clamp) before the model."));
}

}  // namespace

bool generic_rule(const SiteView& view, Contributions& out) {
  bool any = false;
  for (const at::Tensor& backprop : view.backprops) any = any || backprop.defined();
  if (!any) return true;
  for (std::size_t i = 0; i < view.site.uses.size(); ++i) {
    const Use& use = view.site.uses[i];
    const auto sizes = edge_sizes(use.boundary);
    std::vector<at::Tensor> gradients;
    for (std::int64_t b = 0; b < view.batch; ++b) {
      at::Tensor gradient = apply_for_use(view, use, view.batch == 1 ? view.backprops : only_sample(view, b));
      if (!gradient.defined()) break;
      if (gradient.is_sparse()) gradient = gradient.to_dense();
      gradients.push_back(at_least_float(gradient).sum_to_size(sizes));
    }
    if (gradients.empty()) continue;
    if (static_cast<std::int64_t>(gradients.size()) != view.batch) {
      throw Unsupported(message("[capture] Expected ", describe(view.site, view.parameters),
                                " to give a gradient for every sample. Rewrite that operation with supported ones."));
    }
    at::Tensor rows = at::stack(gradients);
    refuse_leaks(view, use, rows);
    out[i] = std::make_unique<Instantiated>(std::move(rows));
  }
  return true;
}

}  // namespace hushgrad
