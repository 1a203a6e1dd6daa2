#include "torch_ext/rules/gram_kernel.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <tuple>

namespace hushgrad {
namespace {

struct Matrix {
  Matrix(std::int64_t time, std::int64_t width, std::int64_t stride, unsigned seed) : stride(stride), width(width), values(time * stride + 1) {
    std::mt19937 bits(seed);
    std::normal_distribution<float> normal;
    for (float& value : values) value = normal(bits);
  }
  GramRows rows() const { return {values.data() + 1, stride, width}; }  // not aligned
  float& at(std::int64_t t, std::int64_t k) { return values[1 + t * stride + k]; }

  std::int64_t stride, width;
  std::vector<float> values;
};

/// || sum_t g_t a_t^T ||^2, entry by entry in float64.
double naive(Matrix a, Matrix g, std::int64_t time) {
  double total = 0;
  for (std::int64_t i = 0; i < g.width; ++i) {
    for (std::int64_t j = 0; j < a.width; ++j) {
      double entry = 0;
      for (std::int64_t t = 0; t < time; ++t) entry += static_cast<double>(g.at(t, i)) * a.at(t, j);
      total += entry * entry;
    }
  }
  return total;
}

class GramKernels : public testing::TestWithParam<GramKernel> {};

TEST_P(GramKernels, AgreeWithTheSumEntryByEntry) {
  unsigned seed = 0;
  for (std::int64_t time : {1, 2, 3, 4, 5, 7, 8, 31, 61, 130, 300}) {
    for (auto [d, p] : {std::tuple{3, 17}, {1, 40}, {4, 8}, {15, 16}, {16, 31}, {33, 5}, {64, 7}}) {
      const Matrix a(time, d, d + 3, ++seed), g(time, p, p, ++seed);
      const double expected = naive(a, g, time);
      EXPECT_NEAR(GetParam().squared_norm(a.rows(), g.rows(), time, 0, time).squared_norm, expected, 2e-5 * expected) << time << " x " << d << ", " << p;
    }
  }
}

TEST_P(GramKernels, TellWhatTheRowsHaveOneByOne) {
  for (std::int64_t time : {1, 5, 64, 131}) {
    Matrix a(time, 18, 18, 1), g(time, 7, 7, 2);
    double expected = 0;
    for (std::int64_t t = 0; t < time; ++t) {
      double of_a = 0, of_g = 0;
      for (std::int64_t k = 0; k < 18; ++k) of_a += static_cast<double>(a.at(t, k)) * a.at(t, k);
      for (std::int64_t k = 0; k < 7; ++k) of_g += static_cast<double>(g.at(t, k)) * g.at(t, k);
      expected += of_a * of_g;
    }
    EXPECT_NEAR(GetParam().squared_norm(a.rows(), g.rows(), time, 0, time).diagonal, expected, 1e-5 * expected);
  }
}

TEST_P(GramKernels, TakeRowsThatAreLongerThanAChunk) {
  const Matrix a(9, 1030, 1030, 1), g(9, 2065, 2100, 2);
  const double expected = naive(a, g, 9);
  EXPECT_NEAR(GetParam().squared_norm(a.rows(), g.rows(), 9, 0, 9).squared_norm, expected, 2e-5 * expected);
}

TEST_P(GramKernels, SharesAddUp) {
  const std::int64_t time = 3 * kGramStep + 11;
  const Matrix a(time, 20, 20, 1), g(time, 9, 9, 2);
  double sum = 0;
  for (std::int64_t begin = 0; begin < time; begin += kGramStep) {
    sum += GetParam().squared_norm(a.rows(), g.rows(), time, begin, std::min(begin + kGramStep, time)).squared_norm;
  }
  const double expected = naive(a, g, time);
  EXPECT_NEAR(sum, expected, 2e-5 * expected);
}

// Nothing outside the rows may count, and whatever is not finite inside them must show.
TEST_P(GramKernels, ReadWhatBelongsToTheRowsOnly) {
  for (std::int64_t width : {5, 16, 21, 40}) {
    Matrix a(6, width, width + 4, 1), g(6, width, width + 4, 2);
    const double clean = naive(a, g, 6);
    for (Matrix* m : {&a, &g}) {
      m->values[0] = NAN;
      for (std::int64_t t = 0; t < 6; ++t) {
        for (std::int64_t k = width; k < width + 4; ++k) m->at(t, k) = NAN;
      }
    }
    EXPECT_NEAR(GetParam().squared_norm(a.rows(), g.rows(), 6, 0, 6).squared_norm, clean, 2e-5 * clean);
    for (std::int64_t t : {0, 5}) {
      for (std::int64_t k : {std::int64_t{0}, width - 1}) {
        for (float value : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
          Matrix spoilt = a;
          spoilt.at(t, k) = value;
          EXPECT_FALSE(std::isfinite(GetParam().squared_norm(spoilt.rows(), g.rows(), 6, 0, 6).squared_norm)) << t << ", " << k;
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(VectorUnits, GramKernels, testing::ValuesIn(gram_kernels()), [](const auto& info) {
  std::string name = info.param.vector_unit;
  std::erase(name, '-');
  return name;
});

}  // namespace
}  // namespace hushgrad
