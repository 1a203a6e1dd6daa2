#include "torch_ext/capture/contribution.h"

namespace hushgrad {

at::Tensor at_least_float(const at::Tensor& t) {
  return t.scalar_type() == at::kDouble ? t : t.to(at::kFloat);
}

at::Tensor without_omitted(const at::Tensor& t, const SampleFactors& factors) {
  if (!factors.omitted.defined()) return t;
  return t.index_fill(0, factors.omitted, 0);
}

at::Tensor Instantiated::squared_norms() {
  // gradients: [B, *boundary] -> [B]
  const at::Tensor flat = gradients_.reshape({gradients_.size(0), gradients_.numel() / std::max<std::int64_t>(1, gradients_.size(0))});
  return at_least_float(flat).square().sum(1, false, at::kDouble);
}

at::Tensor Instantiated::weighted_sum(const SampleFactors& factors) {
  const at::Tensor gradients = without_omitted(at_least_float(gradients_), factors);
  const std::int64_t batch = gradients.size(0);
  const auto shape = gradients.sizes().slice(1);
  const at::Tensor row = factors.factors.to(gradients.scalar_type()).unsqueeze(0);
  return row.mm(gradients.reshape({batch, -1})).view(shape);
}

}  // namespace hushgrad
