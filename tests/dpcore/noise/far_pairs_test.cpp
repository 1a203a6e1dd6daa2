#include "dpcore/noise/far_pairs.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "dpcore/random/csprng.h"

namespace hushgrad::internal {
namespace {

std::vector<std::uint64_t> random_words(std::size_t pairs) {
  Csprng rng;
  std::vector<std::uint64_t> words(kWordsPerPair * pairs);
  rng.fill(std::as_writable_bytes(std::span(words)));
  return words;
}

// What comes out for words of which the first are zero, then one is `high`.
double variable_after(int zeros, std::uint64_t high) {
  int calls = 0;
  return small_radius_variable([&] {
    const int pair = calls / 2;
    return calls++ % 2 == 0 && pair < zeros ? 0 : high;
  });
}

TEST(FarPairs, ANewVariableForEachWordOfZeros) {
  constexpr std::uint64_t least = 1ull << 16;
  for (int zeros = 0; zeros < 19; ++zeros) {
    EXPECT_NEAR(variable_after(zeros, ~0ull), std::ldexp(1.0, -48 * (zeros + 1)), std::ldexp(1.0, -48 * (zeros + 1) - 45));
    EXPECT_NEAR(variable_after(zeros, least), std::ldexp(1.0, -48 * (zeros + 2)), std::ldexp(1.0, -48 * (zeros + 2) - 15));
    EXPECT_GE(variable_after(zeros, least), std::ldexp(1.0, -48 * (zeros + 2)));
  }
  EXPECT_THROW(variable_after(19, ~0ull), InvalidState);
}

TEST(FarPairs, OthersStayAsTheyAre) {
  constexpr std::size_t pairs = 1000;
  const auto words = random_words(pairs);
  std::vector<double> noise(2 * pairs), before;
  gaussian_kernel().noise(words.data(), pairs, 0x1p27, noise.data());
  before = noise;
  redraw_far_pairs(words, 0x1p27, noise, []() -> std::uint64_t { ADD_FAILURE(); return 1; });
  EXPECT_EQ(noise, before);
}

TEST(FarPairs, APairOfZerosGoesBeyondTheReachOfItsOwnWords) {
  constexpr std::size_t pairs = 40;
  constexpr double sigma = 0x1p27;
  auto words = random_words(pairs);
  words[7] = 0;
  words[30] = 0xffff;
  std::vector<double> noise(2 * pairs);
  gaussian_kernel().noise(words.data(), pairs, sigma, noise.data());
  const auto before = noise;
  // Then u = 2^-48 * 2^-48 * 2^-5, about.
  int calls = 0;
  redraw_far_pairs(words, sigma, noise, [&]() -> std::uint64_t { return calls++ % 4 == 0 ? 0 : std::uint64_t{1} << 59; });
  EXPECT_EQ(calls, 8);
  for (std::size_t i = 0; i < pairs; ++i) {
    const double radius = std::hypot(noise[i], noise[pairs + i]) / sigma;
    if (i != 7 && i != 30) {
      EXPECT_EQ(noise[i], before[i]);
      EXPECT_EQ(noise[pairs + i], before[pairs + i]);
      continue;
    }
    EXPECT_NEAR(radius, std::sqrt(2 * 101 * std::log(2.0)), 0.02);  // the dither is up to sigma / 128
  }
}

// The same words and the same variable give the same pair as the vectorised loops.
TEST(FarPairs, IsTheKernelsOwnArithmetic) {
  constexpr std::size_t pairs = 20'000;
  const auto words = random_words(pairs);
  for (double sigma : {0.7, 1000.0, 0x1p27, 0x1p40}) {
    std::vector<double> noise(2 * pairs);
    gaussian_kernels().back()->noise(words.data(), pairs, sigma, noise.data());
    int moved = 0;
    for (std::size_t i = 0; i < pairs; ++i) {
      double first = 0, second = 0;
      noise_of_radius(radius_variable(words[i], words[pairs + i]), words[pairs + i], words[2 * pairs + i], sigma, &first, &second);
      EXPECT_NEAR(first, noise[i], 1 + 1e-14 * sigma);
      EXPECT_NEAR(second, noise[pairs + i], 1 + 1e-14 * sigma);
      moved += first != noise[i] ? 1 : 0;
    }
    if (sigma <= 0x1p27) EXPECT_LT(moved, 10);
  }
}

}  // namespace
}  // namespace hushgrad::internal
