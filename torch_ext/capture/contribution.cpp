#include "torch_ext/capture/contribution.h"

#include <ATen/Parallel.h>

#include <algorithm>

#include "torch_ext/capture/sum_of_products.h"

namespace hushgrad {

at::Tensor at_least_float(const at::Tensor& t) {
  return t.scalar_type() == at::kDouble || t.is_complex() ? t : t.to(at::kFloat);
}

at::Tensor without_omitted(const at::Tensor& t, const SampleFactors& factors) {
  if (!factors.omitted.defined()) return t;
  return t.index_fill(0, factors.omitted, 0);
}

bool is_only_ours(const at::Tensor& t) {
  return t.use_count() == 1 && t.storage().use_count() == 1 && t.is_non_overlapping_and_dense();
}

at::Tensor scaled(at::Tensor&& t, const at::Tensor& factors) { return is_only_ours(t) ? t.mul_(factors) : t * factors; }

at::Tensor row_squared_norms(const at::Tensor& t) {
  const std::int64_t batch = t.size(0), width = batch == 0 ? 0 : t.numel() / batch;
  const at::Tensor rows = at_least_float(t).reshape({batch, width}).contiguous();
  if (!(rows.is_cpu() && rows.scalar_type() == at::kFloat)) return rows.to(at::kDouble).square().sum(1);
  at::Tensor norms = at::empty({batch}, at::kDouble);
  const float* data = rows.const_data_ptr<float>();
  double* out = norms.data_ptr<double>();
  at::parallel_for(0, batch, std::max<std::int64_t>(1, 65536 / std::max<std::int64_t>(1, width)), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t b = begin; b < end; ++b) out[b] = sum_of_products(data + b * width, data + b * width, width);
  });
  return norms;
}

at::Tensor Instantiated::squared_norms() { return row_squared_norms(gradients_); }

at::Tensor Instantiated::weighted_sum(const SampleFactors& factors) {
  const at::Tensor gradients = without_omitted(at_least_float(gradients_), factors);
  const std::int64_t batch = gradients.size(0);
  const auto shape = gradients.sizes().slice(1);
  const at::Tensor row = factors.factors.to(gradients.scalar_type()).unsqueeze(0);
  return row.mm(gradients.reshape({batch, -1})).view(shape);
}

}  // namespace hushgrad
