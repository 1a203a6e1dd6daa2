// The inner loop of every norm.
#pragma once

#include <cstdint>

namespace hushgrad {

/// sum_i x_i y_i: blocks of 4096 terms in the type of the data, in sixteen lanes, and the blocks in float64, so that the
/// rounding error does not grow with n.
template <typename T>
double sum_of_products(const T* x, const T* y, std::int64_t n) {
  double total = 0;
  for (std::int64_t first = 0; first < n;) {
    const std::int64_t last = first + 4096 < n ? first + 4096 : n;
    T lanes[16] = {};
    std::int64_t i = first;
    for (; i + 16 <= last; i += 16) {
      for (int k = 0; k < 16; ++k) lanes[k] += x[i + k] * y[i + k];
    }
    for (T lane : lanes) total += static_cast<double>(lane);
    for (; i < last; ++i) total += static_cast<double>(x[i]) * static_cast<double>(y[i]);
    first = last;
  }
  return total;
}

}  // namespace hushgrad
