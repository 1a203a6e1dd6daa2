// LayerNorm and GroupNorm: y = xhat * w + c. Sample b's gradients are sums of g * xhat and of g over its own positions,
// taken in one pass inside the hook so that nothing but [B, d] is kept.
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/generated/Functions.h>

#include <algorithm>

#include "torch_ext/rules/rule.h"

namespace hushgrad {
namespace {

using namespace torch::autograd::generated;

struct WeightAndBias {
  at::Tensor weight, bias;  // [B, d]
};

/// x, g: [B, T, d] contiguous; mean, rstd: [B, T].
WeightAndBias row_normalised_sums(const at::Tensor& x, const at::Tensor& g, const at::Tensor& mean, const at::Tensor& rstd) {
  if (!(x.is_cpu() && x.scalar_type() == at::kFloat)) {
    const at::Tensor xhat = (x - mean.unsqueeze(2)) * rstd.unsqueeze(2);
    return {(g * xhat).sum(1), g.sum(1)};
  }
  const std::int64_t batch = x.size(0), time = x.size(1), width = x.size(2);
  at::Tensor weight = at::zeros({batch, width}, x.options()), bias = at::zeros({batch, width}, x.options());
  const float *px = x.const_data_ptr<float>(), *pg = g.const_data_ptr<float>();
  const float *pm = mean.const_data_ptr<float>(), *pr = rstd.const_data_ptr<float>();
  float *pw = weight.data_ptr<float>(), *pb = bias.data_ptr<float>();
  at::parallel_for(0, batch, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t b = begin; b < end; ++b) {
      for (std::int64_t t = 0; t < time; ++t) {
        const std::int64_t row = b * time + t;
        const float *xr = px + row * width, *gr = pg + row * width;
        float *w = pw + b * width, *c = pb + b * width;
        const float m = pm[row], r = pr[row];
        for (std::int64_t k = 0; k < width; ++k) {
          w[k] += gr[k] * ((xr[k] - m) * r);
          c[k] += gr[k];
        }
      }
    }
  });
  return {weight, bias};
}

void emit(const SiteView& view, const WeightAndBias& sums, Contributions& out) {
  for (std::size_t i = 0; i < view.site.uses.size(); ++i) {
    const Use& use = view.site.uses[i];
    const at::Tensor& gradient = use.edge == 1 ? sums.weight : sums.bias;
    std::vector<std::int64_t> shape{view.batch};
    for (std::int64_t size : edge_sizes(use.boundary)) shape.push_back(size);
    out[i] = std::make_unique<Instantiated>(gradient.reshape(shape));
  }
}

/// The normalised values come from parameters themselves (a table of relative positions).
bool normalises_parameters(const SiteView& view) {
  return std::any_of(view.site.uses.begin(), view.site.uses.end(), [](const Use& use) { return use.edge == 0; });
}

}  // namespace

bool layer_norm_rule(const SiteView& view, Contributions& out) {
  auto* node = dynamic_cast<NativeLayerNormBackward0*>(&view.node());
  if (!node || normalises_parameters(view)) return false;
  if (!view.flows()) return true;
  const RowMap map = view.maps[0];
  const std::int64_t normalised = static_cast<std::int64_t>(node->normalized_shape.size());
  if (map.dim < 0 || map.dim >= view.backprops[0].dim() - normalised) return false;
  std::int64_t width = 1;
  for (const auto& size : node->normalized_shape) width *= size.guard_int(__FILE__, __LINE__);
  const auto rows = [&](const at::Tensor& t, std::int64_t last) {
    return at_least_float(by_sample(t.detach(), map, view.batch)).reshape({view.batch, -1, last}).contiguous();
  };
  const at::Tensor mean = rows(unpack_once(node->result1_, view.site.node), 1).squeeze(2);
  const at::Tensor rstd = rows(unpack_once(node->result2_, view.site.node), 1).squeeze(2);
  emit(view, row_normalised_sums(rows(unpack_once(node->input_), width), rows(view.backprops[0], width), mean, rstd), out);
  return true;
}

bool group_norm_rule(const SiteView& view, Contributions& out) {
  auto* node = dynamic_cast<NativeGroupNormBackward0*>(&view.node());
  if (!node || normalises_parameters(view)) return false;
  if (!view.flows()) return true;
  const RowMap map = view.batch == 1 ? RowMap{0, true} : view.maps[0];
  if (map.dim != 0) return false;
  const std::int64_t images = node->N.guard_int(__FILE__, __LINE__), channels = node->C.guard_int(__FILE__, __LINE__);
  const std::int64_t positions = node->HxW.guard_int(__FILE__, __LINE__), groups = node->group;
  // [N, G, C/G, HW]
  const std::vector<std::int64_t> grouped{images, groups, channels / groups, positions};
  const at::Tensor x = at_least_float(unpack_once(node->input_).detach()).reshape(grouped);
  const at::Tensor g = at_least_float(view.backprops[0].detach()).reshape(grouped);
  const at::Tensor mean = at_least_float(unpack_once(node->result1_, view.site.node)).view({images, groups, 1, 1});
  const at::Tensor rstd = at_least_float(unpack_once(node->result2_, view.site.node)).view({images, groups, 1});
  const at::Tensor weight = ((x - mean).mul_(g).sum(3) * rstd).view({images, channels});
  const at::Tensor bias = g.sum(3).view({images, channels});
  const auto per_sample = [&](const at::Tensor& t) { return by_sample(t, map, view.batch).sum(1); };
  emit(view, {per_sample(weight), per_sample(bias)}, out);
  return true;
}

}  // namespace hushgrad
