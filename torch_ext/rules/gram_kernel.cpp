#include "torch_ext/rules/gram_kernel.h"

#include <algorithm>

#include "torch_ext/rules/vector_units.h"

namespace hushgrad {
namespace {

[[gnu::always_inline]] inline float sum(const V4& v) { return (v[0] + v[1]) + (v[2] + v[3]); }
[[gnu::always_inline]] inline float sum(const V8& v) {
  V4 half[2];
  __builtin_memcpy(half, &v, sizeof v);
  return sum(half[0] + half[1]);
}
[[gnu::always_inline]] inline float sum(const V16& v) {
  V8 half[2];
  __builtin_memcpy(half, &v, sizeof v);
  return sum(half[0] + half[1]);
}

/// out: [R, R] = x_i . y_j over `width`.
template <typename V, int R>
[[gnu::always_inline]] inline void block(const float* const* x, const float* const* y, std::int64_t width, float (&out)[R][R]) {
  constexpr std::int64_t lanes = sizeof(V) / sizeof(float);
  V sums[R][R] = {};
  std::int64_t k = 0;
  for (; k + lanes <= width; k += lanes) {
    V left[R];
    for (int i = 0; i < R; ++i) load(left[i], x[i] + k);
    for (int j = 0; j < R; ++j) {
      V right;
      load(right, y[j] + k);
      for (int i = 0; i < R; ++i) sums[i][j] += left[i] * right;
    }
  }
  for (int i = 0; i < R; ++i) {
    for (int j = 0; j < R; ++j) {
      float rest = 0;
      for (std::int64_t l = k; l < width; ++l) rest += x[i][l] * y[j][l];
      out[i][j] = sum(sums[i][j]) + rest;
    }
  }
}

template <int R>
[[gnu::always_inline]] inline void point(const GramRows& rows, std::int64_t first, std::int64_t time, const float* (&to)[R]) {
  // Beyond the end the last row stands in; what comes of it is not counted.
  for (int i = 0; i < R; ++i) to[i] = rows.data + std::min(first + i, time - 1) * rows.stride;
}

template <typename V, int R>
[[gnu::always_inline]] inline double total(const GramRows& a, const GramRows& g, std::int64_t time, std::int64_t begin, std::int64_t end) {
  double sum = 0;
  for (std::int64_t first = begin; first < end; first += R) {
    const float *a_left[R], *g_left[R];
    point<R>(a, first, time, a_left);
    point<R>(g, first, time, g_left);
    const int rows = static_cast<int>(std::min<std::int64_t>(R, time - first));
    for (std::int64_t second = first; second < time; second += R) {
      const float *a_right[R], *g_right[R];
      point<R>(a, second, time, a_right);
      point<R>(g, second, time, g_right);
      float of_a[R][R], of_g[R][R];
      block<V, R>(a_left, a_right, a.width, of_a);
      block<V, R>(g_left, g_right, g.width, of_g);
      const int columns = static_cast<int>(std::min<std::int64_t>(R, time - second));
      double products = 0;
      for (int i = 0; i < rows; ++i) {
        for (int j = 0; j < columns; ++j) products += static_cast<double>(of_a[i][j]) * of_g[i][j];
      }
      sum += second == first ? products : 2 * products;
    }
  }
  return sum;
}

#if defined(__x86_64__)
HUSHGRAD_AVX512 double total_avx512(const GramRows& a, const GramRows& g, std::int64_t time, std::int64_t begin, std::int64_t end) { return total<V16, 5>(a, g, time, begin, end); }
HUSHGRAD_AVX2 double total_avx2(const GramRows& a, const GramRows& g, std::int64_t time, std::int64_t begin, std::int64_t end) { return total<V8, 3>(a, g, time, begin, end); }
#endif
double total_plain(const GramRows& a, const GramRows& g, std::int64_t time, std::int64_t begin, std::int64_t end) { return total<V4, 3>(a, g, time, begin, end); }

using Total = double (*)(const GramRows&, const GramRows&, std::int64_t, std::int64_t, std::int64_t);

Total choose() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) return &total_avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return &total_avx2;
#endif
  return &total_plain;
}

}  // namespace

double gram_squared_norm(const GramRows& a, const GramRows& g, std::int64_t time, std::int64_t begin, std::int64_t end) {
  static const Total chosen = choose();
  return chosen(a, g, time, begin, end);
}

}  // namespace hushgrad
