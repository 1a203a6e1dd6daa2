#include "dpcore/noise/lattice_gaussian.h"

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <type_traits>
#include <vector>

#include "dpcore/clipping/clipping_pass.h"
#include "dpcore/error.h"
#include "dpcore/random/insecure_seed.h"
#include "dpcore/random/statistics.h"

namespace hushgrad {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

// What a caller does: clip (nothing to clip here), wrap, add noise.
void add(std::vector<SumPart> parts, double max_grad_norm, double noise_multiplier, double scale,
         Csprng& rng, NoiseSampler sampler = NoiseSampler::fast) {
  ClippingPass clipping(max_grad_norm);
  Noise::add(clipping.finish(std::move(parts)), noise_multiplier, scale, rng, sampler);
}

std::vector<float> noisy(std::vector<float> values, double max_grad_norm, double noise_multiplier,
                         double scale, Csprng& rng) {
  add({values}, max_grad_norm, noise_multiplier, scale, rng);
  return values;
}

std::vector<float> uniform_values(std::size_t size, std::uint64_t seed) {
  InsecureSeed stream(seed);
  std::vector<float> values(size);
  for (float& v : values)
    v = static_cast<float>(static_cast<double>(stream.stream().next_u64()) * 0x1p-63 - 1.0);
  return values;
}

// What the release may depend on: the sum in whole steps.
std::vector<float> rounded(std::vector<float> values, double grid) {
  for (float& v : values) v = static_cast<float>(std::nearbyint(v / grid) * grid);
  return values;
}

TEST(Noise, ReturnsTheSameMemoryAsANoisySum) {
  std::vector<float> a(10), b(3);
  ClippingPass clipping(1.0);
  Csprng rng;
  const NoisySum out = Noise::add(clipping.finish({a, b}), 1.0, 1.0, rng);
  ASSERT_EQ(out.parts().size(), 2u);
  EXPECT_EQ(out.parts()[0].data(), a.data());
  EXPECT_EQ(out.parts()[1].size(), 3u);
  EXPECT_NE(a[0], 0.0f);
}

TEST(Noise, EveryOutputIsOnTheGrid) {
  Csprng rng;
  for (double clip : {0.1, 1.0, 10.0}) {
    for (std::size_t d : {1u, 7u, 5000u}) {
      const double grid = choose_lattice(1.3, clip, d).grid;
      for (float out : noisy(uniform_values(d, 1), clip, 1.3, 1.0, rng)) {
        const double steps = out / grid;
        EXPECT_EQ(steps, std::nearbyint(steps));
      }
    }
  }
}

TEST(Noise, DataBelowTheGridDoesNotReachTheOutput) {
  const std::size_t d = 20'000;
  const double grid = choose_lattice(1.0, 1.0, d).grid;
  std::vector<float> values = uniform_values(d, 2);
  for (float& v : values) v /= 16;  // leaves float32 room for fractions of a step
  const std::vector<float> coarse = rounded(std::move(values), grid);
  std::vector<float> up = coarse, down = coarse, step = coarse;
  for (std::size_t i = 0; i < d; ++i) {
    up[i] += static_cast<float>(0.4 * grid);
    down[i] -= static_cast<float>(0.3 * grid);
    step[i] += static_cast<float>(grid);
  }
  ASSERT_FALSE(coarse == up);
  InsecureSeed a(3), b(3), c(3), e(3);
  const std::vector<float> reference = noisy(coarse, 1.0, 1.0, 1.0, a.stream());
  EXPECT_TRUE(reference == noisy(up, 1.0, 1.0, 1.0, b.stream()));
  EXPECT_TRUE(reference == noisy(down, 1.0, 1.0, 1.0, c.stream()));
  // And a whole step moves the output by exactly that step (the noise here stays below 2^24 steps: float32
  // holds it).
  const std::vector<float> moved = noisy(step, 1.0, 1.0, 1.0, e.stream());
  std::size_t exact = 0;
  for (std::size_t i = 0; i < d; ++i) exact += static_cast<double>(moved[i]) - reference[i] == grid ? 1 : 0;
  EXPECT_GT(exact, d * 99 / 100);
}

// Standard deviation noise_multiplier * C, mean the sum. Deviations of the estimates at d = 10^6: sqrt(2 / d)
// and 1 / sqrt(d); false alarm 1e-6 for each of two statistics and six settings. The lattice adds at most
// 7e-5.
TEST(Noise, HasTheChargedStandardDeviationAndNoBias) {
  const std::size_t d = 1'000'000;
  Csprng rng;
  for (double clip : {0.1, 1.0, 10.0}) {
    for (double noise_multiplier : {0.5, 4.0}) {
      const std::vector<float> out =
          noisy(std::vector<float>(d, static_cast<float>(clip)), clip, noise_multiplier, 1.0, rng);
      long double mean = 0, square = 0;
      for (float v : out) {
        const double noise = v - static_cast<double>(static_cast<float>(clip));
        mean += noise;
        square += noise * noise;
      }
      const double stddev = noise_multiplier * clip, n = static_cast<double>(d);
      EXPECT_LT(std::abs(static_cast<double>(mean) / n / stddev) * std::sqrt(n), testing::kNormalLimit);
      EXPECT_LT(std::abs(static_cast<double>(square) / n / (stddev * stddev) - 1.0),
                testing::kNormalLimit * std::sqrt(2.0 / n) + 2e-4);
    }
  }
}

TEST(Noise, CoordinatesAndCallsAreIndependent) {
  const std::size_t d = 1'000'000;
  Csprng rng;
  const std::vector<float> one = noisy(std::vector<float>(d), 1.0, 1.0, 1.0, rng);
  const std::vector<float> two = noisy(std::vector<float>(d), 1.0, 1.0, 1.0, rng);
  // Neighbours, halves of a pair, neighbouring tiles, and the same coordinate of the next call. 4 * 1e-6.
  for (std::size_t lag : {1u, 512u, 16384u}) {
    EXPECT_LT(std::abs(testing::correlation_z(
                  d - lag, [&](auto i) { return one[i]; }, [&](auto i) { return one[i + lag]; })),
              testing::kNormalLimit);
  }
  EXPECT_LT(std::abs(testing::correlation_z(
                d, [&](auto i) { return one[i]; }, [&](auto i) { return two[i]; })),
            testing::kNormalLimit);
}

TEST(Noise, NoTwoTilesOrPartsShareTheirNoise) {
  std::vector<float> whole(100'000);
  std::vector<SumPart> parts;
  for (std::size_t at = 0, size = 1; at < whole.size(); at += size, size = size * 2 + 1) {
    parts.push_back(std::span(whole).subspan(at, std::min(size, whole.size() - at)));
  }
  Csprng rng;
  add(parts, 1.0, 1.0, 1.0, rng);
  // Runs of three equal values would repeat a block of the stream; by chance: 10^10 / 2^60.
  std::vector<std::array<float, 3>> runs;
  for (std::size_t i = 0; i + 2 < whole.size(); ++i) runs.push_back({whole[i], whole[i + 1], whole[i + 2]});
  std::sort(runs.begin(), runs.end());
  EXPECT_EQ(std::adjacent_find(runs.begin(), runs.end()), runs.end());
  // No coordinate was left out: a zero has mass 2^-24 or less, and three of them together 10^-8.
  EXPECT_LT(std::count(whole.begin(), whole.end(), 0.0f), 3);
}

TEST(Noise, ScaleIsOneMultiplicationOfTheLatticeValue) {
  const std::size_t d = 64;  // grid 2^-17: every value below fits float32 at scale 1
  const std::vector<float> values = uniform_values(d, 4);
  for (double scale : {0x1p-8, 1.0 / 256, 1.0 / 300, 3.0, 1e-6}) {
    InsecureSeed a(5), b(5);
    const std::vector<float> plain = noisy(values, 1.0, 1.0, 1.0, a.stream());
    const std::vector<float> scaled = noisy(values, 1.0, 1.0, scale, b.stream());
    const double grid = choose_lattice(1.0, 1.0, d).grid;
    for (std::size_t i = 0; i < d; ++i) {
      EXPECT_EQ(scaled[i], static_cast<float>(plain[i] / grid * (grid * scale)));
    }
  }
}

TEST(Noise, NumberOfThreadsDoesNotMatter) {
  using SetThreads = void (*)(int);
  const auto set_threads = reinterpret_cast<SetThreads>(dlsym(RTLD_DEFAULT, "omp_set_num_threads"));
  ASSERT_NE(set_threads, nullptr);
  std::vector<std::vector<float>> outputs;
  for (int threads : {1, 2, 7}) {
    set_threads(threads);
    InsecureSeed seed(6);
    outputs.push_back(noisy(uniform_values(200'001, 7), 1.0, 1.0, 1.0, seed.stream()));
  }
  set_threads(2);
  EXPECT_TRUE(outputs[0] == outputs[1]);
  EXPECT_TRUE(outputs[0] == outputs[2]);
}

TEST(Noise, EverySizeIsCovered) {
  Csprng rng;
  for (std::size_t size : {1u, 2u, 3u, 511u, 512u, 513u, 1023u, 1024u, 1025u, 16383u, 16384u, 16385u}) {
    std::vector<float> memory(size + 2, 5.0f);
    add({std::span(memory).subspan(1, size)}, 1.0, 100.0, 1.0, rng);
    EXPECT_EQ(memory.front(), 5.0f);
    EXPECT_EQ(memory.back(), 5.0f);
    // Exactly 5 comes back with probability below 10^-7 a coordinate.
    EXPECT_LE(std::count(memory.begin() + 1, memory.end() - 1, 5.0f), 1) << size;
  }
}

// The exact sampler through the whole mechanism: deviation, grid, threads, refusals.
TEST(Noise, ExactSamplerKeepsTheSameContract) {
  const std::size_t d = 200'000;
  Csprng rng;
  std::vector<float> out(d, 3.0f);
  add({out}, 2.0, 1.5, 1.0, rng, NoiseSampler::exact);
  const double grid = choose_lattice(1.5, 2.0, d).grid;
  long double square = 0;
  for (float v : out) {
    EXPECT_EQ(std::nearbyint(v / grid), v / grid);
    square += (v - 3.0L) * (v - 3.0L);
  }
  EXPECT_LT(std::abs(static_cast<double>(square) / d / 9.0 - 1), testing::kNormalLimit * std::sqrt(2.0 / d) + 2e-4);

  std::vector<std::vector<float>> by_threads;
  const auto set_threads = reinterpret_cast<void (*)(int)>(dlsym(RTLD_DEFAULT, "omp_set_num_threads"));
  for (int threads : {1, 3}) {
    set_threads(threads);
    InsecureSeed seed(6);
    std::vector<float> values = uniform_values(50'001, 7);
    add({values}, 1.0, 1.0, 1.0, seed.stream(), NoiseSampler::exact);
    by_threads.push_back(std::move(values));
  }
  set_threads(2);
  EXPECT_TRUE(by_threads[0] == by_threads[1]);

  std::vector<float> wrong{1.0f, kNan};
  EXPECT_THROW(add({wrong}, 1.0, 1.0, 1.0, rng, NoiseSampler::exact), PrivacyViolation);
  EXPECT_EQ(wrong, std::vector<float>(2));
}

TEST(Noise, DimensionZeroIsEmpty) {
  Csprng rng;
  ClippingPass clipping(1.0), with_empty_part(1.0);
  EXPECT_TRUE(Noise::add(clipping.finish({}), 1.0, 1.0, rng).parts().empty());
  EXPECT_EQ(Noise::add(with_empty_part.finish({SumPart()}), 1.0, 1.0, rng).parts().size(), 1u);
}

TEST(Noise, WithoutNoiseItOnlyScales) {
  Csprng rng;
  const std::vector<float> values = uniform_values(40'000, 8);
  const std::vector<float> out = noisy(values, 1.0, 0.0, 0.1, rng);
  for (std::size_t i = 0; i < values.size(); ++i) EXPECT_EQ(out[i], static_cast<float>(values[i] * 0.1));
}

TEST(Noise, RefusesANonFiniteSumAndLeavesZeros) {
  Csprng rng;
  for (double noise_multiplier : {0.0, 1.0}) {
    for (float wrong : {kNan, kInf, -kInf}) {
      for (std::size_t at : {0u, 16'384u, 39'999u}) {
        std::vector<float> first(40'000, 1.0f), second(10, 1.0f);
        first[at] = wrong;
        EXPECT_THROW(add({first, second}, 1.0, noise_multiplier, 1.0, rng), PrivacyViolation);
        EXPECT_TRUE(first == std::vector<float>(first.size()));
        EXPECT_EQ(second, std::vector<float>(second.size()));
      }
    }
  }
}

TEST(Noise, RefusesArgumentsOutsideTheirDomainAndLeavesZeros) {
  Csprng rng;
  struct Case {
    double clip, noise_multiplier, scale;
  };
  const double nan = kNan, inf = kInf;
  for (const Case& c : {Case{1.0, -1.0, 1.0}, Case{1.0, nan, 1.0}, Case{1.0, inf, 1.0}, Case{1.0, 1.0, 0.0},
                        Case{1.0, 1.0, -1.0}, Case{1.0, 1.0, nan}, Case{1.0, 1.0, inf}, Case{1e-40, 1.0, 1.0},
                        Case{1e18, 1.0, 1e25}}) {
    std::vector<float> values(10, 1.0f);
    EXPECT_THROW(add({values}, c.clip, c.noise_multiplier, c.scale, rng), InvalidArgument)
        << c.clip << " " << c.noise_multiplier << " " << c.scale;
    EXPECT_EQ(values, std::vector<float>(10));
  }
}

}  // namespace
}  // namespace hushgrad
