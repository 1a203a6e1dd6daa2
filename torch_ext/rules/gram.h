// Per-sample norms of a product without the product ("ghost norm", Goodfellow 2015; Li et al. 2022).
#pragma once

#include <ATen/ATen.h>

#include "torch_ext/capture/rows.h"

namespace hushgrad {

/// Rows that cancel each other leave a small difference of large float32 numbers, and a norm below the true one would let a sample
/// through the bound. Below this share of what the rows have one by one the gradient itself is formed.
inline constexpr double kCancelled = 0.01;
/// Entries of a gradient that is formed for that, at a time.
inline constexpr std::int64_t kFormedAtATime = 1 << 20;

/// norms, one_by_one: [B] float64 on the CPU. Where a sample's norm is cancelled against what its terms have one by one, formed(b)
/// instead.
template <typename Formed>
at::Tensor without_cancelled(at::Tensor norms, const at::Tensor& one_by_one, Formed&& formed) {
  for (std::int64_t b = 0; b < norms.size(0); ++b) {
    double& norm = norms.data_ptr<double>()[b];
    if (norm < kCancelled * one_by_one.const_data_ptr<double>()[b]) norm = formed(b);
  }
  return norms;
}

/// activations: [R, d], backprops: [R, p], R = B*T -> ||g_b^T a_b||_F^2 = sum_{t,s} (a_t . a_s)(g_t . g_s): [B] float64.
/// Only tiles on and above the diagonal are computed, and none is written out.
at::Tensor gram_squared_norms(const at::Tensor& activations, const at::Tensor& backprops, const RowMap& rows,
                              std::int64_t batch);

/// The same by the library's products, on any device: activations [B, T, d], backprops [B, T, p].
at::Tensor gram_squared_norms_by_library(const at::Tensor& activations, const at::Tensor& backprops);

}  // namespace hushgrad
