#include "torch_ext/rules/convolution_gram.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>
#include <ostream>
#include <random>
#include <string>
#include <vector>

namespace hushgrad {
namespace {

struct Case {
  std::string name;
  ConvolutionGeometry geometry;
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

std::int64_t outputs(std::int64_t in, std::int64_t kernel, std::int64_t stride, std::int64_t padding, std::int64_t dilation) {
  return (in + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1;
}

Case make(std::string name, std::array<std::int64_t, 3> in, std::array<std::int64_t, 3> kernel, std::array<std::int64_t, 3> stride,
          std::array<std::int64_t, 3> padding, std::array<std::int64_t, 3> dilation, std::int64_t groups, std::int64_t in_channels,
          std::int64_t out_channels) {
  ConvolutionGeometry s{in, {}, kernel, stride, padding, dilation, groups, in_channels, out_channels};
  for (int d = 0; d < 3; ++d) s.out[d] = outputs(in[d], kernel[d], stride[d], padding[d], dilation[d]);
  return {std::move(name), s};
}

const std::vector<Case> kCases = {
    make("plain", {1, 8, 8}, {1, 3, 3}, {1, 1, 1}, {0, 1, 1}, {1, 1, 1}, 1, 5, 7),
    make("one_tap", {1, 6, 5}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}, {1, 1, 1}, 1, 3, 4),
    make("one_tap_of_every_other_pixel", {1, 7, 8}, {1, 1, 1}, {1, 2, 2}, {0, 0, 0}, {1, 1, 1}, 1, 3, 4),
    make("strided", {1, 9, 8}, {1, 3, 3}, {1, 2, 2}, {0, 1, 1}, {1, 1, 1}, 1, 4, 6),
    make("padding_beyond_the_image", {1, 3, 4}, {1, 5, 3}, {1, 1, 3}, {0, 4, 5}, {1, 1, 1}, 1, 2, 3),
    make("dilated", {1, 9, 11}, {1, 3, 2}, {1, 1, 2}, {0, 2, 3}, {1, 2, 3}, 1, 3, 4),
    make("grouped", {1, 6, 6}, {1, 3, 3}, {1, 1, 1}, {0, 1, 1}, {1, 1, 1}, 2, 6, 4),
    make("depthwise", {1, 5, 7}, {1, 3, 3}, {1, 1, 1}, {0, 1, 1}, {1, 1, 1}, 6, 6, 6),
    make("series", {1, 1, 150}, {1, 1, 5}, {1, 1, 1}, {0, 0, 2}, {1, 1, 1}, 1, 3, 4),
    make("series_strided", {1, 1, 151}, {1, 1, 4}, {1, 1, 3}, {0, 0, 1}, {1, 1, 2}, 1, 3, 4),
    make("column", {1, 20, 1}, {1, 3, 1}, {1, 1, 1}, {0, 1, 0}, {1, 1, 1}, 1, 3, 4),
    make("volume", {4, 5, 6}, {3, 2, 3}, {1, 2, 1}, {1, 0, 1}, {1, 1, 1}, 1, 3, 4),
    make("more_than_a_panel", {1, 9, 13}, {1, 3, 3}, {1, 1, 1}, {0, 1, 1}, {1, 1, 1}, 1, 8, 8),
    make("one_position", {1, 3, 3}, {1, 3, 3}, {1, 1, 1}, {0, 0, 0}, {1, 1, 1}, 1, 4, 5),
};

template <typename T>
std::vector<T> normals(std::int64_t count, unsigned seed) {
  std::mt19937 bits(seed);
  std::normal_distribution<T> normal;
  std::vector<T> values(static_cast<std::size_t>(count));
  for (T& value : values) value = normal(bits);
  return values;
}

struct Naive {
  double squared_norm = 0, diagonal = 0;
};

/// The weight gradient entry by entry, and what its positions have one by one.
template <typename T>
Naive naive(const ConvolutionGeometry& s, const std::vector<T>& image, const std::vector<T>& backprop) {
  Naive result;
  const std::int64_t channels = s.in_channels / s.groups, per_group = s.out_channels / s.groups;
  std::vector<double> of_patch(s.groups * s.out_positions()), of_backprop(s.groups * s.out_positions());
  for (std::int64_t o = 0; o < s.out_channels; ++o) {
    const std::int64_t group = o / per_group;
    for (std::int64_t row = 0; row < s.patch(); ++row) {
      const std::int64_t c = group * channels + row / s.taps(), tap = row % s.taps();
      const std::int64_t kz = tap / (s.kernel[1] * s.kernel[2]), ky = tap / s.kernel[2] % s.kernel[1], kx = tap % s.kernel[2];
      double entry = 0;
      for (std::int64_t t = 0; t < s.out_positions(); ++t) {
        const std::int64_t z = t / (s.out[1] * s.out[2]) * s.stride[0] - s.padding[0] + kz * s.dilation[0];
        const std::int64_t y = t / s.out[2] % s.out[1] * s.stride[1] - s.padding[1] + ky * s.dilation[1];
        const std::int64_t x = t % s.out[2] * s.stride[2] - s.padding[2] + kx * s.dilation[2];
        const double g = static_cast<double>(backprop[o * s.out_positions() + t]);
        if (row == 0) of_backprop[group * s.out_positions() + t] += g * g;
        if (z < 0 || z >= s.in[0] || y < 0 || y >= s.in[1] || x < 0 || x >= s.in[2]) continue;
        const double value = static_cast<double>(image[((c * s.in[0] + z) * s.in[1] + y) * s.in[2] + x]);
        entry += g * value;
        if (o % per_group == 0) of_patch[group * s.out_positions() + t] += value * value;
      }
      result.squared_norm += entry * entry;
    }
  }
  for (std::size_t i = 0; i < of_patch.size(); ++i) result.diagonal += of_patch[i] * of_backprop[i];
  return result;
}

class ConvolutionGrams : public testing::TestWithParam<Case> {};

template <typename T>
void expect_as_naive(const ConvolutionGeometry& s, double tolerance) {
  ConvolutionGram<T> gram(s);
  for (unsigned seed = 1; seed < 4; ++seed) {  // one object, several images: nothing stays from the one before
    const auto image = normals<T>(s.in_channels * s.in_positions(), seed), backprop = normals<T>(s.out_channels * s.out_positions(), seed + 10);
    const Naive expected = naive(s, image, backprop);
    const GramSum got = gram.squared_norm(image.data(), backprop.data());
    EXPECT_NEAR(got.squared_norm, expected.squared_norm, tolerance * expected.squared_norm);
    EXPECT_NEAR(got.diagonal, expected.diagonal, tolerance * expected.diagonal);
  }
}

TEST_P(ConvolutionGrams, AgreeWithTheGradientEntryByEntryInFloat) { expect_as_naive<float>(GetParam().geometry, 2e-5); }

TEST_P(ConvolutionGrams, AgreeWithTheGradientEntryByEntryInDouble) { expect_as_naive<double>(GetParam().geometry, 1e-12); }

INSTANTIATE_TEST_SUITE_P(Shapes, ConvolutionGrams, testing::ValuesIn(kCases), [](const auto& info) { return info.param.name; });

TEST(ConvolutionGrams, AreNotMadeOfManyPositions) {
  const auto cost = [](std::int64_t side) {
    return convolution_gram_cost(make("", {1, side, side}, {1, 3, 3}, {1, 1, 1}, {0, 1, 1}, {1, 1, 1}, 1, 8, 8).geometry);
  };
  EXPECT_DOUBLE_EQ(cost(32), 1024.0 * 1024 * (8 + 8 + 9) / 2);
  EXPECT_EQ(cost(64), std::numeric_limits<double>::infinity());
}

TEST(ConvolutionGrams, TellOfPositionsThatCancel) {
  const ConvolutionGeometry s = kCases[1].geometry;
  const std::vector<float> image(static_cast<std::size_t>(s.in_channels * s.in_positions()), 1.0f);
  std::vector<float> backprop(static_cast<std::size_t>(s.out_channels * s.out_positions()));
  for (std::size_t i = 0; i < backprop.size(); ++i) backprop[i] = i % 2 ? 1.0f : -1.0f;
  const GramSum sum = ConvolutionGram<float>(s).squared_norm(image.data(), backprop.data());
  EXPECT_LT(sum.squared_norm, 0.01 * sum.diagonal);
}

TEST(ConvolutionGrams, KeepNotANumber) {
  const ConvolutionGeometry s = kCases[0].geometry;
  auto image = normals<float>(s.in_channels * s.in_positions(), 1), backprop = normals<float>(s.out_channels * s.out_positions(), 2);
  backprop[3] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::isnan(ConvolutionGram<float>(s).squared_norm(image.data(), backprop.data()).squared_norm));
}

}  // namespace
}  // namespace hushgrad
