// Embedding tables: sample b's gradient has one row for each distinct id in b, the sum of that id's backprops.
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/generated/Functions.h>

#include <algorithm>
#include <numeric>

#include "dpcore/error.h"
#include "torch_ext/rules/embedding.h"
#include "torch_ext/rules/rule.h"

namespace hushgrad {
namespace {

using torch::autograd::generated::EmbeddingBackward0;

/// ids: [B, T] int64, backprops: [B, T, d]; rows with padding_idx are already zero.
class EmbeddingContribution final : public Contribution {
 public:
  EmbeddingContribution(at::Tensor ids, at::Tensor backprops, std::int64_t rows)
      : ids_(std::move(ids)), backprops_(std::move(backprops)), rows_(rows) {}

  at::Tensor squared_norms() override {
    if (ids_.size(1) == 1) return backprops_.square().sum({1, 2}, false, at::kDouble);
    if (backprops_.is_cpu() && backprops_.scalar_type() == at::kFloat) return sorted_norms();
    // Pairs of equal ids: sum_{t,s} [id_t == id_s] (g_t . g_s).
    // In float64: backprops of one id may cancel each other.
    const at::Tensor same = ids_.unsqueeze(2).eq(ids_.unsqueeze(1)), wide = backprops_.to(at::kDouble);
    return wide.bmm(wide.transpose(1, 2)).mul_(same).sum({1, 2}).clamp_min(0);
  }

  at::Tensor weighted_sum(const SampleFactors& factors) override {
    at::Tensor scaled = without_omitted(backprops_, factors) *
                        factors.factors.to(backprops_.scalar_type()).view({-1, 1, 1});
    return at::embedding_dense_backward(scaled, ids_, rows_, -1, false);
  }

  at::Tensor per_sample() override {
    const std::int64_t batch = ids_.size(0), width = backprops_.size(2);
    const at::Tensor shifted = ids_ + at::arange(batch, ids_.options()).unsqueeze(1) * rows_;
    return at::zeros({batch * rows_, width}, backprops_.options())
        .index_add_(0, shifted.reshape(-1), backprops_.reshape({-1, width}))
        .view({batch, rows_, width});
  }

  std::unique_ptr<Contribution> merge(std::vector<std::unique_ptr<Contribution>>& alike) override {
    std::vector<at::Tensor> ids, backprops;
    for (auto& other : alike) {
      auto* embedding = dynamic_cast<EmbeddingContribution*>(other.get());
      if (!embedding) return nullptr;
      ids.push_back(embedding->ids_);
      backprops.push_back(embedding->backprops_);
    }
    return std::make_unique<EmbeddingContribution>(at::cat(ids, 1), at::cat(backprops, 1), rows_);
  }

  EmbeddingParts parts() const { return {ids_, backprops_}; }

 private:
  at::Tensor sorted_norms() const {
    const std::int64_t batch = ids_.size(0), time = ids_.size(1), width = backprops_.size(2);
    const at::Tensor ids = ids_.contiguous(), backprops = backprops_.contiguous();
    const std::int64_t* id = ids.const_data_ptr<std::int64_t>();
    const float* g = backprops.const_data_ptr<float>();
    at::Tensor norms = at::empty({batch}, at::kDouble);
    double* out = norms.data_ptr<double>();
    at::parallel_for(0, batch, 1, [&](std::int64_t begin, std::int64_t end) {
      std::vector<std::int64_t> order(time);
      std::vector<float> row(width);
      for (std::int64_t b = begin; b < end; ++b) {
        const std::int64_t* sample = id + b * time;
        std::iota(order.begin(), order.end(), 0);
        std::sort(order.begin(), order.end(), [&](auto s, auto t) { return sample[s] < sample[t]; });
        double total = 0;
        for (std::int64_t i = 0; i < time;) {
          std::fill(row.begin(), row.end(), 0.0f);
          const std::int64_t current = sample[order[i]];
          for (; i < time && sample[order[i]] == current; ++i) {
            const float* from = g + (b * time + order[i]) * width;
            for (std::int64_t k = 0; k < width; ++k) row[k] += from[k];
          }
          for (float value : row) total += static_cast<double>(value) * value;
        }
        out[b] = total;
      }
    });
    return norms;
  }

  at::Tensor ids_, backprops_;
  std::int64_t rows_;
};

}  // namespace

std::optional<EmbeddingParts> embedding_parts(const Contribution& contribution) {
  const auto* embedding = dynamic_cast<const EmbeddingContribution*>(&contribution);
  if (!embedding) return std::nullopt;
  return embedding->parts();
}

bool embedding_rule(const SiteView& view, Contributions& out) {
  auto* node = dynamic_cast<EmbeddingBackward0*>(&view.node());
  if (!node) return false;
  if (node->scale_grad_by_freq) {
    throw Unsupported(message("[embedding] Expected scale_grad_by_freq=False in ", describe(view.site, view.parameters),
                              ": it divides by counts over the whole batch and so mixes samples. Build the embedding without it."));
  }
  if (!view.flows()) return true;
  const at::Tensor indices = unpack_once(node->indices_);
  const RowMap map = view.maps[0];
  at::Tensor ids, backprops;
  if (map.dim < 0 || map.dim >= indices.dim()) {
    if (view.batch != 1) return false;
    ids = indices.reshape({1, -1});
    backprops = view.backprops[0].reshape({1, ids.size(1), -1});
  } else {
    ids = by_sample(indices, map, view.batch).reshape({view.batch, -1});
    backprops = by_sample(view.backprops[0], map, view.batch).reshape({view.batch, ids.size(1), -1});
  }
  ids = ids.to(at::kLong);
  backprops = at_least_float(backprops.detach());
  const std::int64_t padding = node->padding_idx.guard_int(__FILE__, __LINE__);
  if (padding >= 0) backprops = backprops.masked_fill(ids.eq(padding).unsqueeze(2), 0);
  out[0] = std::make_unique<EmbeddingContribution>(ids, backprops, edge_sizes(view.site.uses[0].boundary)[0]);
  return true;
}

}  // namespace hushgrad
