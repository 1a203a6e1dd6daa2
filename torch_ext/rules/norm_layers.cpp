// LayerNorm and GroupNorm: y = xhat * w + c. Sample b's gradients are sums of g * xhat and of g over its own positions,
// taken in one pass inside the hook so that nothing but [B, d] is kept.
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/generated/Functions.h>

#include <algorithm>

#include "torch_ext/rules/rule.h"
#include "torch_ext/rules/vector_units.h"

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

/// Sum of g * (x - mean) and of g over one channel.
struct ChannelSums {
  double weight, bias;
};

HUSHGRAD_CLONES ChannelSums channel_sums(const float* x, const float* g, float mean, std::int64_t positions) {
  constexpr std::int64_t lanes = 32, block = 4096;  // as many sums at a time, and so many values before they are added in float64
  ChannelSums total{0, 0};
  for (std::int64_t first = 0; first < positions; first += block) {
    const std::int64_t last = std::min(first + block, positions);
    float weight[lanes] = {}, bias[lanes] = {};
    std::int64_t i = first;
    for (; i + lanes <= last; i += lanes) {
      for (std::int64_t k = 0; k < lanes; ++k) {
        weight[k] += g[i + k] * (x[i + k] - mean);
        bias[k] += g[i + k];
      }
    }
    for (; i < last; ++i) {
      weight[i % lanes] += g[i] * (x[i] - mean);
      bias[i % lanes] += g[i];
    }
    for (std::int64_t k = 0; k < lanes; ++k) {
      total.weight += static_cast<double>(weight[k]);
      total.bias += static_cast<double>(bias[k]);
    }
  }
  return total;
}

/// x, g: [N, C, positions] contiguous; mean, rstd: [N, groups]. Sums over the positions: [N, C].
WeightAndBias channel_normalised_sums(const at::Tensor& x, const at::Tensor& g, const at::Tensor& mean, const at::Tensor& rstd) {
  const std::int64_t images = x.size(0), channels = x.size(1), positions = x.size(2), per_group = channels / mean.size(1);
  const auto is_float = [](const at::Tensor& t) { return t.is_cpu() && t.scalar_type() == at::kFloat; };
  if (!(is_float(x) && is_float(g) && is_float(mean) && is_float(rstd))) {
    const auto by_channel = [&](const at::Tensor& t) { return t.repeat_interleave(per_group, 1); };
    return {(x - by_channel(mean).unsqueeze(2)).mul(g).sum(2) * by_channel(rstd), g.sum(2)};
  }
  at::Tensor weight = at::empty({images, channels}, x.options()), bias = at::empty({images, channels}, x.options());
  const float *px = x.const_data_ptr<float>(), *pg = g.const_data_ptr<float>();
  const at::Tensor means = mean.contiguous(), rstds = rstd.contiguous();
  const float *pm = means.const_data_ptr<float>(), *pr = rstds.const_data_ptr<float>();
  float *pw = weight.data_ptr<float>(), *pb = bias.data_ptr<float>();
  at::parallel_for(0, images * channels, std::max<std::int64_t>(1, 32768 / std::max<std::int64_t>(1, positions)), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const std::int64_t group = row / per_group;
      const ChannelSums sums = channel_sums(px + row * positions, pg + row * positions, pm[group], positions);
      pw[row] = static_cast<float>(sums.weight * pr[group]);
      pb[row] = static_cast<float>(sums.bias);
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
  const at::Tensor x = at_least_float(unpack_once(node->input_).detach()).contiguous().view({images, channels, positions});
  const at::Tensor g = at_least_float(view.backprops[0].detach()).contiguous().view({images, channels, positions});
  const at::Tensor mean = at_least_float(unpack_once(node->result1_, view.site.node)).view({images, groups});
  const at::Tensor rstd = at_least_float(unpack_once(node->result2_, view.site.node)).view({images, groups});
  const auto [weight, bias] = channel_normalised_sums(x, g, mean, rstd);
  const auto per_sample = [&](const at::Tensor& t) { return by_sample(t, map, view.batch).sum(1); };
  emit(view, {per_sample(weight), per_sample(bias)}, out);
  return true;
}

}  // namespace hushgrad
