#include "torch_ext/rules/gram_kernel.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "torch_ext/rules/vector_units.h"

namespace hushgrad {
namespace {

typedef double D16 __attribute__((vector_size(128)));
typedef double D8 __attribute__((vector_size(64)));
typedef double D4 __attribute__((vector_size(32)));

// A tile is the inner products of kLeft rows with kRight rows: as many as a vector has lanes, so that the partial sums, one vector a
// product, fold into one vector.
template <typename V>
struct Tile;
template <>
struct Tile<V16> {
  using Wide = D16;
  typedef int Lanes __attribute__((vector_size(64)));
  static constexpr Lanes kPlaces = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  static constexpr int kLeft = 4, kRight = 4;
};
template <>
struct Tile<V8> {
  using Wide = D8;
  typedef int Lanes __attribute__((vector_size(32)));
  static constexpr Lanes kPlaces = {0, 1, 2, 3, 4, 5, 6, 7};
  static constexpr int kLeft = 4, kRight = 2;
};
template <>
struct Tile<V4> {
  using Wide = D4;
  typedef int Lanes __attribute__((vector_size(16)));
  static constexpr Lanes kPlaces = {0, 1, 2, 3};
  static constexpr int kLeft = 2, kRight = 2;
};

constexpr std::int64_t kChunk = 1024;  // values of a row at a time: the rows of a tile stay in the first-level cache
constexpr int kTiles = 32;             // tiles whose products wait for each other

template <typename V>
constexpr int lanes() { return static_cast<int>(sizeof(V) / sizeof(float)); }

// One level of the fold: lanes of x and y in blocks of `Block`, those that are summed brought on top of each other.
[[gnu::always_inline]] inline void add_blocks1(const V4& x, const V4& y, V4& to) {
  to = __builtin_shufflevector(x, y, 0, 4, 2, 6) + __builtin_shufflevector(x, y, 1, 5, 3, 7);
}
[[gnu::always_inline]] inline void add_blocks2(const V4& x, const V4& y, V4& to) {
  to = __builtin_shufflevector(x, y, 0, 1, 4, 5) + __builtin_shufflevector(x, y, 2, 3, 6, 7);
}

[[gnu::always_inline]] inline void add_blocks1(const V8& x, const V8& y, V8& to) {
  to = __builtin_shufflevector(x, y, 0, 8, 2, 10, 4, 12, 6, 14) + __builtin_shufflevector(x, y, 1, 9, 3, 11, 5, 13, 7, 15);
}
[[gnu::always_inline]] inline void add_blocks2(const V8& x, const V8& y, V8& to) {
  to = __builtin_shufflevector(x, y, 0, 1, 8, 9, 4, 5, 12, 13) + __builtin_shufflevector(x, y, 2, 3, 10, 11, 6, 7, 14, 15);
}
[[gnu::always_inline]] inline void add_blocks4(const V8& x, const V8& y, V8& to) {
  to = __builtin_shufflevector(x, y, 0, 1, 2, 3, 8, 9, 10, 11) + __builtin_shufflevector(x, y, 4, 5, 6, 7, 12, 13, 14, 15);
}

[[gnu::always_inline]] inline void add_blocks1(const V16& x, const V16& y, V16& to) {
  to = __builtin_shufflevector(x, y, 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30) +
         __builtin_shufflevector(x, y, 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31);
}
[[gnu::always_inline]] inline void add_blocks2(const V16& x, const V16& y, V16& to) {
  to = __builtin_shufflevector(x, y, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) +
         __builtin_shufflevector(x, y, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
}
[[gnu::always_inline]] inline void add_blocks4(const V16& x, const V16& y, V16& to) {
  to = __builtin_shufflevector(x, y, 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27) +
         __builtin_shufflevector(x, y, 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31);
}
[[gnu::always_inline]] inline void add_blocks8(const V16& x, const V16& y, V16& to) {
  to = __builtin_shufflevector(x, y, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
         __builtin_shufflevector(x, y, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
}

/// v[0], lane l: the sum over the lanes of v[l]. The others are used up.
[[gnu::always_inline]] inline void fold(V4 (&v)[4]) {
  for (int i = 0; i < 2; ++i) add_blocks2(v[i], v[i + 2], v[i]);
  add_blocks1(v[0], v[1], v[0]);
}
[[gnu::always_inline]] inline void fold(V8 (&v)[8]) {
  for (int i = 0; i < 4; ++i) add_blocks4(v[i], v[i + 4], v[i]);
  for (int i = 0; i < 2; ++i) add_blocks2(v[i], v[i + 2], v[i]);
  add_blocks1(v[0], v[1], v[0]);
}
[[gnu::always_inline]] inline void fold(V16 (&v)[16]) {
  for (int i = 0; i < 8; ++i) add_blocks8(v[i], v[i + 8], v[i]);
  for (int i = 0; i < 4; ++i) add_blocks4(v[i], v[i + 4], v[i]);
  for (int i = 0; i < 2; ++i) add_blocks2(v[i], v[i + 2], v[i]);
  add_blocks1(v[0], v[1], v[0]);
}

/// The `lanes` values before `end`, those before the last `count` taken for zeros.
template <typename V>
[[gnu::always_inline]] inline void load_last(V& to, const float* end, std::int64_t count) {
  load(to, end - lanes<V>());
  to = Tile<V>::kPlaces >= lanes<V>() - static_cast<int>(count) ? to : V{};
}

template <typename V>
using Left = std::array<const float*, Tile<V>::kLeft>;
template <typename V>
using Right = std::array<const float*, Tile<V>::kRight>;

// Beyond the end the last row stands in; what comes of it is not counted.
template <std::size_t N>
[[gnu::always_inline]] inline void point(const GramRows& rows, std::int64_t first, std::int64_t time, std::array<const float*, N>& to) {
  for (std::size_t i = 0; i < N; ++i) to[i] = rows.data + std::min(first + static_cast<std::int64_t>(i), time - 1) * rows.stride;
}

/// Adds x_i . y_j over [begin, end) to lane i * kRight + j; the rows are not shorter than a vector.
template <typename V>
[[gnu::always_inline]] inline void add_tile(const Left<V>& x, const Right<V>& y, std::int64_t begin, std::int64_t end, V& out) {
  constexpr int left = Tile<V>::kLeft, right = Tile<V>::kRight, step = lanes<V>();
  V sums[left * right] = {};
  std::int64_t k = begin;
  for (; k + step <= end; k += step) {
    V of_y[right];
    for (int j = 0; j < right; ++j) load(of_y[j], y[j] + k);
    for (int i = 0; i < left; ++i) {
      V of_x;
      load(of_x, x[i] + k);
      for (int j = 0; j < right; ++j) sums[i * right + j] += of_x * of_y[j];
    }
  }
  if (k < end) {
    V of_y[right];
    for (int j = 0; j < right; ++j) load_last(of_y[j], y[j] + end, end - k);
    for (int i = 0; i < left; ++i) {
      V of_x;
      load_last(of_x, x[i] + end, end - k);
      for (int j = 0; j < right; ++j) sums[i * right + j] += of_x * of_y[j];
    }
  }
  fold(sums);
  out += sums[0];
}

/// The tile of rows shorter than a vector.
template <typename V>
[[gnu::noinline]] void narrow_tile(const Left<V>& x, const Right<V>& y, std::int64_t width, V& out) {
  for (std::size_t i = 0; i < x.size(); ++i) {
    for (std::size_t j = 0; j < y.size(); ++j) {
      float sum = 0;
      for (std::int64_t k = 0; k < width; ++k) sum += x[i][k] * y[j][k];
      out[i * y.size() + j] = sum;
    }
  }
}

/// out: `count` tiles of the rows from `first` with those from `second` on.
template <typename V>
[[gnu::always_inline]] inline void tiles(const GramRows& rows, std::int64_t first, std::int64_t second, int count, std::int64_t time, V* out) {
  Left<V> x;
  Right<V> y;
  point(rows, first, time, x);
  if (rows.width < lanes<V>()) {
    for (int t = 0; t < count; ++t) {
      point(rows, second + t * Tile<V>::kRight, time, y);
      narrow_tile<V>(x, y, rows.width, out[t]);
    }
    return;
  }
  for (int t = 0; t < count; ++t) out[t] = V{};
  for (std::int64_t k = 0; k < rows.width; k += kChunk) {
    for (int t = 0; t < count; ++t) {
      point(rows, second + t * Tile<V>::kRight, time, y);
      add_tile(x, y, k, std::min(k + kChunk, rows.width), out[t]);
    }
  }
}

/// Adds x * y lane by lane, each as often as its pair of rows counts: twice above the diagonal, once on it.
template <typename V>
[[gnu::always_inline]] inline void count_pairs(const V& x, const V& y, std::int64_t first, std::int64_t second, std::int64_t time, GramSum& sum) {
  constexpr int right = Tile<V>::kRight;
  for (int l = 0; l < lanes<V>(); ++l) {
    const std::int64_t i = first + l / right, j = second + l % right;
    if (i > j || j >= time) continue;
    const double product = static_cast<double>(x[l]) * y[l];
    sum.squared_norm += i == j ? product : 2 * product;
    if (i == j) sum.diagonal += product;
  }
}

template <typename V>
[[gnu::always_inline]] inline GramSum total(const GramRows& a, const GramRows& g, std::int64_t time, std::int64_t begin, std::int64_t end) {
  constexpr int left = Tile<V>::kLeft, right = Tile<V>::kRight;
  using Wide = typename Tile<V>::Wide;
  V of_a[kTiles], of_g[kTiles];
  GramSum sum;
  for (std::int64_t first = begin; first < end; first += left) {
    Wide above = {};  // the diagonal, both times in every lane
    for (std::int64_t panel = first; panel < time; panel += kTiles * right) {
      const int count = static_cast<int>(std::min<std::int64_t>(kTiles, (time - panel + right - 1) / right));
      tiles<V>(a, first, panel, count, time, of_a);
      tiles<V>(g, first, panel, count, time, of_g);
      for (int t = 0; t < count; ++t) {
        const std::int64_t second = panel + t * right;
        if (second >= first + left && second + right <= time) {
          above += __builtin_convertvector(of_a[t], Wide) * __builtin_convertvector(of_g[t], Wide);
        } else {
          count_pairs(of_a[t], of_g[t], first, second, time, sum);
        }
      }
    }
    for (int l = 0; l < lanes<V>(); ++l) sum.squared_norm += 2 * above[l];
  }
  return sum;
}

#if defined(__x86_64__)
HUSHGRAD_AVX512 GramSum total_avx512(const GramRows& a, const GramRows& g, std::int64_t time, std::int64_t begin, std::int64_t end) { return total<V16>(a, g, time, begin, end); }
HUSHGRAD_AVX2 GramSum total_avx2(const GramRows& a, const GramRows& g, std::int64_t time, std::int64_t begin, std::int64_t end) { return total<V8>(a, g, time, begin, end); }
#endif
GramSum total_plain(const GramRows& a, const GramRows& g, std::int64_t time, std::int64_t begin, std::int64_t end) { return total<V4>(a, g, time, begin, end); }

}  // namespace

std::vector<GramKernel> gram_kernels() {
  std::vector<GramKernel> kernels{{"plain", &total_plain}};
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) kernels.push_back({"AVX2", &total_avx2});
  if (__builtin_cpu_supports("avx512f")) kernels.push_back({"AVX-512", &total_avx512});
#endif
  return kernels;
}

GramSum gram_squared_norm(const GramRows& a, const GramRows& g, std::int64_t time, std::int64_t begin, std::int64_t end) {
  static const GramKernel fastest = gram_kernels().back();
  return fastest.squared_norm(a, g, time, begin, end);
}

}  // namespace hushgrad
