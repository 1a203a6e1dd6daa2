#include "torch_ext/rules/gram.h"

#include <ATen/Parallel.h>

#include <algorithm>

#include "torch_ext/capture/contribution.h"
#include "torch_ext/capture/sum_of_products.h"
#include "torch_ext/rules/gemm.h"
#include "torch_ext/rules/gram_kernel.h"

namespace hushgrad {
namespace {

constexpr std::int64_t kPanel = 64;  // rows of a tile: two 64 x 128 tiles and their operands stay in the second-level cache

/// Rows of one sample inside a row-major matrix.
template <typename T>
struct Rows {
  const T* data;
  std::int64_t sample_stride, row_stride, width;
  const T* row(std::int64_t b, std::int64_t t) const { return data + b * sample_stride + t * row_stride; }
};

template <typename T>
Rows<T> rows_of(const at::Tensor& matrix, const RowMap& map, std::int64_t batch) {
  const std::int64_t time = matrix.size(0) / batch, stride = matrix.stride(0);
  if (map.major) return {matrix.const_data_ptr<T>(), time * stride, stride, matrix.size(1)};
  return {matrix.const_data_ptr<T>(), stride, batch * stride, matrix.size(1)};
}

/// out: [n, m] = x[0:n] . y[0:m]^T
template <typename T>
void dot_rows(const Rows<T>& r, std::int64_t b, std::int64_t first, std::int64_t n, std::int64_t second, std::int64_t m, T* out) {
  gemm_nt(n, m, r.width, r.row(b, first), r.row_stride, r.row(b, second), r.row_stride, T(0), out, m);
}

template <typename T>
at::Tensor gram_cpu(const at::Tensor& a, const at::Tensor& g, const RowMap& map, std::int64_t batch) {
  const std::int64_t time = a.size(0) / batch, panels = (time + kPanel - 1) / kPanel;
  const Rows<T> as = rows_of<T>(a, map, batch), gs = rows_of<T>(g, map, batch);
  // One cell a panel, summed afterwards: threads never add to the same number.
  at::Tensor partial = at::empty({batch, panels}, at::kDouble);
  double* cells = partial.data_ptr<double>();
  at::parallel_for(0, batch * panels, 1, [&](std::int64_t begin, std::int64_t end) {
    std::vector<T> tile_a(kPanel * kPanel), tile_g(kPanel * kPanel);
    for (std::int64_t job = begin; job < end; ++job) {
      const std::int64_t b = job / panels, first = (job % panels) * kPanel, n = std::min(kPanel, time - first);
      double total = 0;
      for (std::int64_t second = first; second < time; second += kPanel) {
        const std::int64_t m = std::min(kPanel, time - second);
        dot_rows(as, b, first, n, second, m, tile_a.data());
        dot_rows(gs, b, first, n, second, m, tile_g.data());
        total += (second == first ? 1.0 : 2.0) * sum_of_products(tile_a.data(), tile_g.data(), n * m);
      }
      cells[job] = total;
    }
  });
  return partial.sum(1);
}

/// || g^T a ||^2 of one sample. a: [T, d], g: [T, p].
double formed_squared_norm(const at::Tensor& a, const at::Tensor& g) {
  const at::Tensor wide_a = a.to(at::kDouble), wide_g = g.to(at::kDouble);
  const std::int64_t p = g.size(1), step = std::max<std::int64_t>(1, kFormedAtATime / std::max<std::int64_t>(1, a.size(1)));
  double total = 0;
  for (std::int64_t first = 0; first < p; first += step) {
    total += wide_g.narrow(1, first, std::min(step, p - first)).t().mm(wide_a).square().sum().item<double>();
  }
  return total;
}

at::Tensor gram_float(const at::Tensor& a, const at::Tensor& g, const RowMap& map, std::int64_t batch) {
  const std::int64_t time = a.size(0) / batch;
  const Rows<float> as = rows_of<float>(a, map, batch), gs = rows_of<float>(g, map, batch);
  // Samples are cut only where there are too few of them for the threads.
  const std::int64_t step = batch >= 2 * at::get_num_threads() ? time : kGramStep, parts = (time + step - 1) / step;
  std::vector<GramSum> cells(static_cast<std::size_t>(batch * parts));
  at::parallel_for(0, batch * parts, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t job = begin; job < end; ++job) {
      const std::int64_t b = job / parts, first = job % parts * step;
      cells[job] = gram_squared_norm({as.row(b, 0), as.row_stride, as.width}, {gs.row(b, 0), gs.row_stride, gs.width}, time, first,
                                     std::min(first + step, time));
    }
  });
  at::Tensor norms = at::empty({batch}, at::kDouble);
  for (std::int64_t b = 0; b < batch; ++b) {
    GramSum sum;
    for (std::int64_t part = 0; part < parts; ++part) {
      sum.squared_norm += cells[b * parts + part].squared_norm;
      sum.diagonal += cells[b * parts + part].diagonal;
    }
    if (sum.squared_norm < kCancelled * sum.diagonal) sum.squared_norm = formed_squared_norm(by_sample(a, map, batch)[b], by_sample(g, map, batch)[b]);
    norms.data_ptr<double>()[b] = sum.squared_norm;
  }
  return norms;
}

at::Tensor row_major(const at::Tensor& t) {
  return t.stride(1) == 1 && t.stride(0) >= t.size(1) ? t : t.contiguous();
}

}  // namespace

at::Tensor gram_squared_norms(const at::Tensor& activations, const at::Tensor& backprops, const RowMap& rows,
                              std::int64_t batch) {
  const at::Tensor a = row_major(at_least_float(activations)), g = row_major(at_least_float(backprops));
  const std::int64_t time = a.size(0) / batch;
  if (time == 1) return row_squared_norms(a) * row_squared_norms(g);
  if (a.is_cpu() && g.is_cpu() && a.scalar_type() == g.scalar_type()) {
    const at::Tensor norms = a.scalar_type() == at::kDouble ? gram_cpu<double>(a, g, rows, batch) : gram_float(a, g, rows, batch);
    // Rounding may leave a sum of squares below zero by an ulp of its terms; NaN stays NaN.
    return at::where(norms < 0, at::zeros_like(norms), norms);
  }
  return gram_squared_norms_by_library(by_sample(a, rows, batch), by_sample(g, rows, batch));
}

at::Tensor gram_squared_norms_by_library(const at::Tensor& activations, const at::Tensor& backprops) {
  const auto &a = activations, &g = backprops;
  const at::Tensor product = a.bmm(a.transpose(1, 2)).mul_(g.bmm(g.transpose(1, 2)));
  const at::Tensor diagonal = product.diagonal(0, 1, 2).sum(1, false, at::kDouble).cpu();
  return without_cancelled(product.sum({1, 2}, false, at::kDouble).cpu(), diagonal, [&](std::int64_t b) { return formed_squared_norm(a[b], g[b]); });
}

}  // namespace hushgrad
