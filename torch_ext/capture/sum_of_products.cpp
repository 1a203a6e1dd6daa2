#include "torch_ext/capture/sum_of_products.h"

#include "torch_ext/rules/vector_units.h"

namespace hushgrad {
namespace {

constexpr int kLanes = 64;  // four vectors of AVX-512: as many sums as the multiplier keeps in flight

template <typename T>
[[gnu::always_inline]] inline double sum(const T* x, const T* y, std::int64_t n) {
  double total = 0;
  for (std::int64_t first = 0; first < n;) {
    const std::int64_t last = first + 4096 < n ? first + 4096 : n;
    T lanes[kLanes] = {};
    std::int64_t i = first;
    for (; i + kLanes <= last; i += kLanes) {
      for (int k = 0; k < kLanes; ++k) lanes[k] += x[i + k] * y[i + k];
    }
    for (T lane : lanes) total += static_cast<double>(lane);
    for (; i < last; ++i) total += static_cast<double>(x[i]) * static_cast<double>(y[i]);
    first = last;
  }
  return total;
}

}  // namespace

HUSHGRAD_CLONES double sum_of_products(const float* x, const float* y, std::int64_t n) { return sum(x, y, n); }
HUSHGRAD_CLONES double sum_of_products(const double* x, const double* y, std::int64_t n) { return sum(x, y, n); }

}  // namespace hushgrad
