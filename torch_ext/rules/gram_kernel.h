// The squared Frobenius norm of g^T a without forming it.
#pragma once

#include <cstdint>
#include <vector>

namespace hushgrad {

/// Rows of one sample: row t starts at data + t * stride.
struct GramRows {
  const float* data;
  std::int64_t stride, width;
};

struct GramSum {
  double squared_norm = 0;
  double diagonal = 0;  // sum over t of ||a_t||^2 ||g_t||^2: far above squared_norm where the rows cancel each other
};

/// Share of the rows [begin, end) in sum over t, s < time of (a_t . a_s)(g_t . g_s) = || sum_t g_t a_t^T ||^2: the pairs with t in
/// the range and s >= t, those with s > t twice. Only half of both Gram matrices is formed, in tiles that are
/// multiplied and summed before they leave the first-level cache. float32 products, float64 total. One thread; AVX-512, AVX2 or plain, whatever the processor has.
/// begin: a multiple of kGramStep. end: too, or time.
GramSum gram_squared_norm(const GramRows& a, const GramRows& g, std::int64_t time, std::int64_t begin, std::int64_t end);

inline constexpr std::int64_t kGramStep = 60;  // whole tiles of every vector unit

/// gram_squared_norm() for one vector unit.
struct GramKernel {
  const char* vector_unit;
  GramSum (*squared_norm)(const GramRows& a, const GramRows& g, std::int64_t time, std::int64_t begin, std::int64_t end);
};

/// Those that this processor can run, the fastest last.
std::vector<GramKernel> gram_kernels();

}  // namespace hushgrad
