// The inner loop of every norm.
#pragma once

#include <cstdint>

namespace hushgrad {

/// sum_i x_i y_i: blocks of 4096 terms in the type of the data, in 64 lanes, and the blocks in float64, so that the rounding error
/// does not grow with n. Compiled for the vector units that a processor may have.
double sum_of_products(const float* x, const float* y, std::int64_t n);
double sum_of_products(const double* x, const double* y, std::int64_t n);

}  // namespace hushgrad
