// A small matrix product on the calling thread, for kernels that split the work over samples themselves.
#pragma once

#include <cstdint>

namespace hushgrad {

/// out: [n, m] = beta * out + x . y^T with x: [n, k], y: [m, k], all row-major with the given row strides.
void gemm_nt(std::int64_t n, std::int64_t m, std::int64_t k, const float* x, std::int64_t x_stride, const float* y,
             std::int64_t y_stride, float beta, float* out, std::int64_t out_stride);
void gemm_nt(std::int64_t n, std::int64_t m, std::int64_t k, const double* x, std::int64_t x_stride, const double* y,
             std::int64_t y_stride, double beta, double* out, std::int64_t out_stride);


/// out: [n, m] = x^T . y with x: [k, n], y: [k, m], all row-major with the given row strides.
void gemm_tn(std::int64_t n, std::int64_t m, std::int64_t k, const float* x, std::int64_t x_stride, const float* y,
             std::int64_t y_stride, float* out, std::int64_t out_stride);
void gemm_tn(std::int64_t n, std::int64_t m, std::int64_t k, const double* x, std::int64_t x_stride, const double* y,
             std::int64_t y_stride, double* out, std::int64_t out_stride);

}  // namespace hushgrad
