#include "torch_ext/rules/tied.h"

#include "torch_ext/rules/embedding.h"
#include "torch_ext/rules/linear.h"

namespace hushgrad {
namespace {

class Tied final : public Contribution {
 public:
  Tied(std::unique_ptr<Contribution> table, std::unique_ptr<Contribution> layer, bool layer_is_transposed)
      : table_(std::move(table)), layer_(std::move(layer)), layer_is_transposed_(layer_is_transposed) {}

  at::Tensor squared_norms() override {
    const at::Tensor cross = cross_term();  // before the layer may instantiate itself
    const at::Tensor norms = table_->squared_norms() + layer_->squared_norms() + 2 * cross;
    // Rounding may leave a sum of squares below zero by an ulp of its terms; NaN stays NaN.
    return at::where(norms < 0, at::zeros_like(norms), norms);
  }

  at::Tensor weighted_sum(const SampleFactors& factors) override {
    return table_->weighted_sum(factors).add_(upright(layer_->weighted_sum(factors)));
  }

  at::Tensor per_sample() override { return table_->per_sample() + upright(layer_->per_sample()); }

 private:
  at::Tensor upright(const at::Tensor& t) const { return layer_is_transposed_ ? t.transpose(-1, -2) : t; }

  at::Tensor cross_term() const {
    const EmbeddingParts table = *embedding_parts(*table_);
    const LinearParts layer = *linear_parts(*layer_);
    const at::Tensor a = at_least_float(layer.activations), g = at_least_float(layer.backprops);  // [B, S, d], [B, S, V]
    const at::Tensor products = a.bmm(table.backprops.to(a.scalar_type()).transpose(1, 2));      // [B, S, T]
    const at::Tensor columns = table.ids.unsqueeze(1).expand(products.sizes());
    return products.mul(g.gather(2, columns)).sum({1, 2}, false, at::kDouble);
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
