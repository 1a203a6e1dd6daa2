#include "torch_ext/rules/gemm.h"

#include <ATen/ATen.h>

// The BLAS that libtorch_cpu carries. Weak: a build of PyTorch that hides it falls back to the dispatcher, which costs
// microseconds a call.
extern "C" {
void sgemm_(const char*, const char*, const int*, const int*, const int*, const float*, const float*, const int*, const float*,
            const int*, const float*, float*, const int*) __attribute__((weak));
void dgemm_(const char*, const char*, const int*, const int*, const int*, const double*, const double*, const int*,
            const double*, const int*, const double*, double*, const int*) __attribute__((weak));
}

namespace hushgrad {
namespace {

template <typename T>
using Blas = void (*)(const char*, const char*, const int*, const int*, const int*, const T*, const T*, const int*, const T*,
                      const int*, const T*, T*, const int*);

template <typename T>
void by_dispatcher(std::int64_t n, std::int64_t m, std::int64_t k, const T* x, std::int64_t x_stride, const T* y,
                   std::int64_t y_stride, T beta, T* out, std::int64_t out_stride) {
  at::NoGradGuard no_grad;
  const auto options = at::TensorOptions().dtype(c10::CppTypeToScalarType<T>::value);
  const at::Tensor a = at::from_blob(const_cast<T*>(x), {n, k}, {x_stride, 1}, options);
  const at::Tensor b = at::from_blob(const_cast<T*>(y), {m, k}, {y_stride, 1}, options);
  at::Tensor c = at::from_blob(out, {n, m}, {out_stride, 1}, options);
  if (beta == T(0)) {
    at::mm_out(c, a, b.t());
  } else {
    c.addmm_(a, b.t(), beta);
  }
}

template <typename T>
void multiply(Blas<T> blas, std::int64_t n, std::int64_t m, std::int64_t k, const T* x, std::int64_t x_stride, const T* y,
              std::int64_t y_stride, T beta, T* out, std::int64_t out_stride) {
  if (!blas) return by_dispatcher(n, m, k, x, x_stride, y, y_stride, beta, out, out_stride);
  // Fortran sees the transposes: out^T [m, n] = y . x^T.
  const int rows = static_cast<int>(m), columns = static_cast<int>(n), inner = static_cast<int>(k);
  const int lda = static_cast<int>(y_stride), ldb = static_cast<int>(x_stride), ldc = static_cast<int>(out_stride);
  const T one = 1;
  blas("T", "N", &rows, &columns, &inner, &one, y, &lda, x, &ldb, &beta, out, &ldc);
}

template <typename T>
void multiply_transposed(Blas<T> blas, std::int64_t n, std::int64_t m, std::int64_t k, const T* x, std::int64_t x_stride, const T* y,
                         std::int64_t y_stride, T* out, std::int64_t out_stride) {
  if (!blas) {
    at::NoGradGuard no_grad;
    const auto options = at::TensorOptions().dtype(c10::CppTypeToScalarType<T>::value);
    const at::Tensor a = at::from_blob(const_cast<T*>(x), {k, n}, {x_stride, 1}, options);
    const at::Tensor b = at::from_blob(const_cast<T*>(y), {k, m}, {y_stride, 1}, options);
    at::Tensor c = at::from_blob(out, {n, m}, {out_stride, 1}, options);
    at::mm_out(c, a.t(), b);
    return;
  }
  const int rows = static_cast<int>(m), columns = static_cast<int>(n), inner = static_cast<int>(k);
  const int lda = static_cast<int>(y_stride), ldb = static_cast<int>(x_stride), ldc = static_cast<int>(out_stride);
  const T one = 1, zero = 0;
  blas("N", "T", &rows, &columns, &inner, &one, y, &lda, x, &ldb, &zero, out, &ldc);
}

}  // namespace

void gemm_tn(std::int64_t n, std::int64_t m, std::int64_t k, const float* x, std::int64_t x_stride, const float* y,
             std::int64_t y_stride, float* out, std::int64_t out_stride) {
  multiply_transposed<float>(sgemm_, n, m, k, x, x_stride, y, y_stride, out, out_stride);
}

void gemm_tn(std::int64_t n, std::int64_t m, std::int64_t k, const double* x, std::int64_t x_stride, const double* y,
             std::int64_t y_stride, double* out, std::int64_t out_stride) {
  multiply_transposed<double>(dgemm_, n, m, k, x, x_stride, y, y_stride, out, out_stride);
}

void gemm_nt(std::int64_t n, std::int64_t m, std::int64_t k, const float* x, std::int64_t x_stride, const float* y,
             std::int64_t y_stride, float beta, float* out, std::int64_t out_stride) {
  multiply<float>(sgemm_, n, m, k, x, x_stride, y, y_stride, beta, out, out_stride);
}

void gemm_nt(std::int64_t n, std::int64_t m, std::int64_t k, const double* x, std::int64_t x_stride, const double* y,
             std::int64_t y_stride, double beta, double* out, std::int64_t out_stride) {
  multiply<double>(dgemm_, n, m, k, x, x_stride, y, y_stride, beta, out, out_stride);
}

}  // namespace hushgrad
