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

/// activations: [R, d], backprops: [R, p], R = B*T -> ||g_b^T a_b||_F^2 = sum_{t,s} (a_t . a_s)(g_t . g_s): [B] float64.
/// Only tiles on and above the diagonal are computed, and none is written out.
at::Tensor gram_squared_norms(const at::Tensor& activations, const at::Tensor& backprops, const RowMap& rows,
                              std::int64_t batch);

/// The same by the library's products, on any device: activations [B, T, d], backprops [B, T, p].
at::Tensor gram_squared_norms_by_library(const at::Tensor& activations, const at::Tensor& backprops);

}  // namespace hushgrad
