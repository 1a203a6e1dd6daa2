#include "torch_ext/rules/tied.h"

#include <algorithm>

#include "torch_ext/rules/embedding.h"
#include "torch_ext/rules/gram.h"
#include "torch_ext/rules/linear.h"

namespace hushgrad {
namespace {

class Tied final : public Contribution {
 public:
  Tied(std::unique_ptr<Contribution> table, std::unique_ptr<Contribution> layer, bool layer_is_transposed)
      : table_(std::move(table)), layer_(std::move(layer)), layer_is_transposed_(layer_is_transposed) {}

  at::Tensor squared_norms() override {
    // Before the layer may instantiate itself.
    const EmbeddingParts table = *embedding_parts(*table_);
    const LinearParts layer = *linear_parts(*layer_);
    const at::Tensor one_by_one = table_->squared_norms().cpu() + layer_->squared_norms().cpu();
    return without_cancelled(one_by_one + 2 * cross_term(table, layer).cpu(), one_by_one,
                             [&](std::int64_t b) { return formed_squared_norm(table, layer, b); });
  }

  at::Tensor weighted_sum(const SampleFactors& factors) override {
    return table_->weighted_sum(factors).add_(upright(layer_->weighted_sum(factors)));
  }

  at::Tensor per_sample() override { return table_->per_sample() + upright(layer_->per_sample()); }

 private:
  at::Tensor upright(const at::Tensor& t) const { return layer_is_transposed_ ? t.transpose(-1, -2) : t; }

  static at::Tensor cross_term(const EmbeddingParts& table, const LinearParts& layer) {
    const at::Tensor a = at_least_float(layer.activations), g = at_least_float(layer.backprops);  // [B, S, d], [B, S, V]
    const at::Tensor products = a.bmm(table.backprops.to(a.scalar_type()).transpose(1, 2));      // [B, S, T]
    const at::Tensor columns = table.ids.unsqueeze(1).expand(products.sizes());
    return products.mul(g.gather(2, columns)).sum({1, 2}, false, at::kDouble);
  }

  // || G_e + G_l ||^2 of sample b, some rows of the table at a time.
  static double formed_squared_norm(const EmbeddingParts& table, const LinearParts& layer, std::int64_t b) {
    const at::Tensor a = layer.activations[b].to(at::kDouble), g = layer.backprops[b].to(at::kDouble);  // [S, d], [S, V]
    const at::Tensor ids = table.ids[b], rows = table.backprops[b].to(at::kDouble);                      // [T], [T, d]
    const std::int64_t words = g.size(1), step = std::max<std::int64_t>(1, kFormedAtATime / std::max<std::int64_t>(1, a.size(1)));
    double total = 0;
    for (std::int64_t first = 0; first < words; first += step) {
      const std::int64_t count = std::min(step, words - first);
      at::Tensor gradient = g.narrow(1, first, count).t().mm(a);
      const at::Tensor here = at::logical_and(ids >= first, ids < first + count).nonzero().squeeze(1);
      gradient.index_add_(0, ids.index_select(0, here) - first, rows.index_select(0, here));
      total += gradient.square().sum().item<double>();
    }
    return total;
  }

  std::unique_ptr<Contribution> table_, layer_;
  bool layer_is_transposed_;
};

/// All of one kind as one, or null with `parts` as they were.
std::unique_ptr<Contribution> merged(std::vector<std::unique_ptr<Contribution>>& parts) {
  if (parts.size() == 1) return std::move(parts[0]);
  return parts[0]->merge(parts);
}

}  // namespace

std::unique_ptr<Contribution> tie(std::vector<TiedUse>& uses) {
  std::vector<std::size_t> tables, layers;
  for (std::size_t i = 0; i < uses.size(); ++i) {
    if (embedding_parts(*uses[i].contribution) && !uses[i].transposed) {
      tables.push_back(i);
      continue;
    }
    const auto parts = linear_parts(*uses[i].contribution);
    // The layer's weight is the table itself, [V, d]: its outputs are the table's rows.
    if (!parts || parts->boundary_is_in_out != uses[i].transposed) return nullptr;
    if (!layers.empty() && uses[layers[0]].transposed != uses[i].transposed) return nullptr;
    layers.push_back(i);
  }
  if (tables.empty() || layers.empty()) return nullptr;
  const bool transposed = uses[layers[0]].transposed;
  std::vector<std::unique_ptr<Contribution>> of_tables, of_layers;
  for (std::size_t i : tables) of_tables.push_back(std::move(uses[i].contribution));
  for (std::size_t i : layers) of_layers.push_back(std::move(uses[i].contribution));
  return std::make_unique<Tied>(merged(of_tables), merged(of_layers), transposed);
}

}  // namespace hushgrad
