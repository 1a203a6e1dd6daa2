#include "dpcore/noise/gaussian_kernel.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "dpcore/error.h"
#include "dpcore/random/csprng.h"

namespace hushgrad::internal {
namespace {

std::vector<std::uint64_t> random_words(std::size_t pairs) {
  Csprng rng;
  std::vector<std::uint64_t> words(kWordsPerPair * pairs);
  rng.fill(std::as_writable_bytes(std::span(words)));
  return words;
}

struct Point {
  long double radius, x, y;
};

// Box and Muller in long double, straight from the description of the words.
Point naive_pair(std::uint64_t a, std::uint64_t b, std::uint64_t c) {
  const long double pi = std::acos(-1.0L);
  const auto k_high = static_cast<long double>(a);       // top 64 of the 92 bits
  const auto k_low = static_cast<long double>(b >> 36);  // the other 28
  const long double u = k_high * 0x1p-64L + (k_low + 0.5L) * 0x1p-92L;
  // Near 1 the sum above rounds; 1 - u does not.
  const auto from_top = static_cast<long double>(~a) + 1 - (k_low + 0.5L) * 0x1p-28L;
  const long double log_u = (a >> 63) ? std::log1p(-from_top * 0x1p-64L) : std::log(u);
  const std::uint64_t angle = ((b & 0xfffffffffu) << 16) | (c >> 48);
  const long double turn = (static_cast<long double>(angle & ((1ull << 50) - 1)) + 0.5L) * 0x1p-52L - 0.125L;
  long double x = std::cos(2 * pi * turn), y = std::sin(2 * pi * turn);
  if (angle >> 50 & 1) std::swap(x, y);
  if (angle >> 51) x = -x, y = -y;
  const long double radius = std::sqrt(-2 * log_u);
  return {radius, radius * x, radius * y};
}

// Bit patterns at the edges: every number of leading zeros and ones, and every edge of the angle.
std::vector<std::uint64_t> awkward_words(std::size_t pairs) {
  std::vector<std::uint64_t> words = random_words(pairs);
  for (std::size_t i = 0; i < pairs; ++i) {
    std::uint64_t &a = words[i], &b = words[pairs + i], &c = words[2 * pairs + i];
    const std::uint64_t angle = b & 0xfffffffffu;
    const std::size_t run = i % 93;
    const auto shifted = [](std::uint64_t x, std::size_t by) { return by >= 64 ? 0 : x >> by; };
    a = shifted(~0ull, run);
    b = (run <= 64 ? ~0ull : shifted(~0ull, run - 64));
    b = (b & ~0xfffffffffull) | angle;
    if (i % 2 == 1) a = ~a, b = ~b;
    if (i % 5 == 0) b |= 0xfffffffffu, c |= 0xffffull << 48;
    if (i % 7 == 0) b &= ~0xfffffffffull, c &= ~(0xffffull << 48);
    if (i % 11 == 0) b = (b & ~0xfffffffffull) | 0x400000000u;
  }
  return words;
}

// The error bound of the header, the one docs/proofs/lattice_gaussian.md builds on.
void expect_accurate(const GaussianKernel& kernel, const std::vector<std::uint64_t>& words) {
  const std::size_t pairs = words.size() / kWordsPerPair;
  constexpr double sigma = 0x1p27;
  std::vector<double> first(pairs), second(pairs);
  kernel.pairs(words.data(), pairs, sigma, first.data(), second.data());
  long double worst = 0;
  for (std::size_t i = 0; i < pairs; ++i) {
    const Point p = naive_pair(words[i], words[pairs + i], words[2 * pairs + i]);
    const long double off = std::hypot(first[i] / sigma - p.x, second[i] / sigma - p.y);
    const long double allowed = p.radius < 0x1p-25L ? 0x1p-25L : 0x1p-50L * (p.radius + 1 / p.radius);
    worst = std::max(worst, off / allowed);
  }
  EXPECT_LT(worst, 1.0L);
}

TEST(GaussianKernel, IsBoxMullerToTheStatedPrecision) {
  for (const GaussianKernel* kernel : gaussian_kernels()) {
    expect_accurate(*kernel, random_words(300'000));
    expect_accurate(*kernel, awkward_words(93 * 70));
  }
}

TEST(GaussianKernel, ReachesElevenStandardDeviations) {
  const std::array<std::uint64_t, 3> words{0, 0, 0};
  std::array<double, 2> x;
  gaussian_kernel().pairs(words.data(), 1, 1.0, &x[0], &x[1]);
  EXPECT_NEAR(std::hypot(x[0], x[1]), std::sqrt(2.0 * 93.0 * std::log(2.0)), 1e-13);
}

// n = round(x + shift) + w, with w cut from its own 24 bits of the third word.
TEST(GaussianKernel, NoiseIsTheRoundedPairPlusItsDither) {
  constexpr std::size_t pairs = 10'000;
  const auto words = random_words(pairs);
  for (double sigma : {0.7, 100.0, 1000.0, 0x1p27, 0x1p40}) {
    const double width = dither_width(sigma), shift = width > 1 ? 0.5 : 0.0;
    for (const GaussianKernel* kernel : gaussian_kernels()) {
      std::vector<double> x(2 * pairs), noise(2 * pairs);
      kernel->pairs(words.data(), pairs, sigma, x.data(), x.data() + pairs);
      kernel->noise(words.data(), pairs, sigma, noise.data());
      for (std::size_t i = 0; i < 2 * pairs; ++i) {
        const std::uint64_t bits = words[2 * pairs + i % pairs] >> (i < pairs ? 0 : 24);
        const double w =
            static_cast<double>(bits % static_cast<std::uint64_t>(width)) - std::floor(width / 2);
        ASSERT_EQ(noise[i], std::nearbyint(noise[i]));
        ASSERT_LE(std::abs(noise[i] - w - (x[i] + shift)), 0.5 + 1e-14 * sigma) << sigma << " " << i;
      }
    }
  }
}

TEST(GaussianKernel, BothKindsMakeTheSameNoise) {
  // Fused multiply-add may move a value across a rounding edge: once in 2^20 values at this sigma, by one
  // step.
  const auto words = random_words(100'000);
  std::vector<double> one(200'000), two(200'000);
  gaussian_kernel().noise(words.data(), 100'000, 0x1p27, one.data());
  gaussian_kernels().back()->noise(words.data(), 100'000, 0x1p27, two.data());
  int moved = 0;
  for (std::size_t i = 0; i < one.size(); ++i) {
    EXPECT_LE(std::abs(one[i] - two[i]), 1.0);
    moved += one[i] != two[i] ? 1 : 0;
  }
  EXPECT_LT(moved, 10);
}

TEST(GaussianKernel, DitherWidthIsWhatTheHeaderSays) {
  EXPECT_EQ(dither_width(0.7), 1.0);
  EXPECT_EQ(dither_width(127.999), 1.0);
  for (double sigma : {128.0, 1000.0, 0x1p27, 0x1.fffp29}) {
    EXPECT_GT(dither_width(sigma), sigma / 128);
    EXPECT_LE(dither_width(sigma), sigma / 64);
    EXPECT_EQ(std::exp2(std::round(std::log2(dither_width(sigma)))), dither_width(sigma));
  }
  EXPECT_EQ(dither_width(kMaxSigmaUnits), 0x1p24);
}

// add() against exact integer arithmetic: values of every magnitude, noise up to 2^49.
TEST(GaussianKernel, AddIsExactIntegerArithmeticThenOneScaling) {
  constexpr std::size_t count = 20'000;
  Csprng rng;
  for (double scale : {1.0, 0x1p-8, 1.0 / 300}) {
    constexpr double grid = 0x1p-20;
    std::vector<float> values(count);
    std::vector<double> noise(count);
    for (std::size_t i = 0; i < count; ++i) {
      const auto magnitude = static_cast<int>(rng.next_u64() % 60) - 30;  // around and far above the grid
      values[i] =
          static_cast<float>(std::ldexp(static_cast<double>(rng.next_u64()) * 0x1p-63 - 1, magnitude));
      noise[i] = static_cast<double>(static_cast<std::int64_t>(rng.next_u64()) >> (14 + rng.next_u64() % 40));
    }
    for (const GaussianKernel* kernel : gaussian_kernels()) {
      std::vector<float> out = values;
      ASSERT_TRUE(kernel->add(out.data(), noise.data(), count, grid, scale));
      for (std::size_t i = 0; i < count; ++i) {
        const auto units = static_cast<__int128>(std::nearbyint(static_cast<double>(values[i]) / grid));
        const auto total = static_cast<double>(units + static_cast<__int128>(noise[i]));
        ASSERT_EQ(out[i], static_cast<float>(total * (grid * scale))) << values[i] << " " << noise[i];
      }
    }
  }
}

TEST(GaussianKernel, AddRefusesWhatWasNotClipped) {
  constexpr float inf = std::numeric_limits<float>::infinity();
  const std::vector<double> noise(9, 1.0);
  for (const GaussianKernel* kernel : gaussian_kernels()) {
    for (std::size_t at = 0; at < noise.size(); ++at) {
      for (float wrong : {std::numeric_limits<float>::quiet_NaN(), inf, -inf, 0x1p80f, -0x1p80f}) {
        std::vector<float> values(noise.size(), 1.0f);
        values[at] = wrong;  // 2^80 is 2^100 steps of 2^-20
        EXPECT_FALSE(kernel->add(values.data(), noise.data(), values.size(), 0x1p-20, 1.0))
            << wrong << " at " << at;
      }
      std::vector<float> values(noise.size(), 1.0f);
      values[at] = 0x1.fffffep79f;
      EXPECT_TRUE(kernel->add(values.data(), noise.data(), values.size(), 0x1p-20, 1.0));
      values[at] = 0x1p79f;
      EXPECT_FALSE(kernel->add(values.data(), noise.data(), values.size(), 0x1p-20, 0x1p60))
          << "leaves float32";
    }
  }
}

}  // namespace
}  // namespace hushgrad::internal
