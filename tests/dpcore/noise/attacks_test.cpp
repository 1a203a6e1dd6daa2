// Published attacks on the low bits of noisy numbers. Each is first shown to work on noise as it is usually added, then to
// learn nothing from ours. The attacker sees one released float32 and guesses which of two sums is behind it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "dpcore/noise/lattice_gaussian.h"
#include "dpcore/random/statistics.h"

namespace hushgrad {
namespace {

constexpr std::size_t kReleases = 40'000;
constexpr double kSigma = 1.0;

double uniform(Csprng& rng, int bits) { return (static_cast<double>(rng.next_u64() >> (64 - bits)) + 0.5) * std::ldexp(1.0, -bits); }

float box_muller(double u, double v) {
  return static_cast<float>(kSigma * std::sqrt(-2 * std::log(u)) * std::cos(2 * std::numbers::pi * v));
}

// As it is usually done: a float32 normal number, added in float32.
std::vector<float> usual(float sum, int bits) {
  Csprng rng;
  std::vector<float> released(kReleases);
  for (float& r : released) r = sum + box_muller(uniform(rng, bits), uniform(rng, bits));
  return released;
}

// Each release a step of its own in dimension one, as an attacker on one coordinate would see it.
std::vector<float> ours(float sum, NoiseSampler sampler) {
  Csprng rng;
  std::vector<float> released(kReleases, sum);
  for (float& r : released) {
    const SumPart part[] = {SumPart(&r, 1)};
    internal::add_lattice_noise(part, 1.0, kSigma, 1.0, rng, sampler);
  }
  return released;
}

// How often `seen` happens in each of two samples, in standard errors of the difference.
template <typename Seen>
double difference(const std::vector<float>& a, const std::vector<float>& b, Seen&& seen) {
  const auto share = [&](const std::vector<float>& r) {
    return static_cast<double>(std::count_if(r.begin(), r.end(), seen)) / static_cast<double>(r.size());
  };
  const double mean = (share(a) + share(b)) / 2;
  if (mean == 0 || mean == 1) return 0;
  return (share(a) - share(b)) / std::sqrt(mean * (1 - mean) * 2 / static_cast<double>(kReleases));
}

bool is_multiple_of(float value, int exponent) {
  const double steps = std::ldexp(static_cast<double>(value), -exponent);
  return steps == std::floor(steps);
}

// Haney, Desfontaines, Hartman, Shrestha and Hay (2022): 1 + noise is never finer than the last place of 1, noise alone
// often is. Tried at every place a float32 can end at; false alarm 40 * 1e-6.
double best_precision_attack(const std::vector<float>& without, const std::vector<float>& with) {
  double best = 0;
  for (int place = -40; place < 0; ++place) {
    best = std::max(best, std::abs(difference(without, with, [&](float r) { return is_multiple_of(r, place); })));
  }
  return best;
}

TEST(Attacks, PrecisionOfTheReleaseTellsTheSumApartAsNoiseIsUsuallyAdded) {
  EXPECT_GT(best_precision_attack(usual(0.0f, 53), usual(1.0f, 53)), 50);
}

TEST(Attacks, PrecisionOfTheReleaseSaysNothingHere) {
  for (NoiseSampler sampler : {NoiseSampler::fast, NoiseSampler::exact}) {
    const std::vector<float> without = ours(0.0f, sampler), with = ours(1.0f, sampler);
    EXPECT_LT(best_precision_attack(without, with), testing::kNormalLimit);
    const double grid = choose_lattice(kSigma, 1.0, 1).grid;
    for (float r : without) ASSERT_TRUE(is_multiple_of(r, std::ilogb(grid)));
    for (float r : with) ASSERT_TRUE(is_multiple_of(r, std::ilogb(grid)));
  }
}

// Mironov (2012): the noise takes few of the values that float32 has; a release from which no such value leads back to a sum
// rules that sum out. With 11 bits for each uniform number the values can be listed.
TEST(Attacks, HolesInTheNoiseRuleASumOutAsNoiseIsUsuallyDrawn) {
  constexpr int bits = 11, side = 1 << bits;
  std::vector<float> values;
  for (int i = 0; i < side; ++i) {
    for (int j = 0; j < side; ++j) values.push_back(box_muller((i + 0.5) / side, (j + 0.5) / side));
  }
  std::sort(values.begin(), values.end());
  // 0.3 moves the release off the values; the release is compared with every float32 the addition may have rounded to it.
  const auto excludes_zero = [&](float r) { return !std::binary_search(values.begin(), values.end(), r); };
  EXPECT_GT(difference(usual(0.3f, bits), usual(0.0f, bits), excludes_zero), 50);
}

// Here every multiple of the grid is a value of the noise, and every release one: no sum is ever ruled out.
TEST(Attacks, NoReleaseRulesASumOutHere) {
  for (NoiseSampler sampler : {NoiseSampler::fast, NoiseSampler::exact}) {
    std::vector<std::int64_t> noise(1'000'000);
    Csprng rng;
    const double sigma = 30;  // coarse, so that all values near the middle come up
    internal::integer_noise(noise, sigma, rng, sampler);
    std::vector<char> seen(121);
    for (std::int64_t n : noise) {
      if (std::abs(n) <= 60) seen[static_cast<std::size_t>(n + 60)] = 1;
    }
    EXPECT_EQ(std::count(seen.begin(), seen.end(), 1), 121);
    const double grid = choose_lattice(kSigma, 1.0, 1).grid;
    for (float sum : {0.0f, 0.3f}) {
      const std::int64_t at = std::llround(sum / grid);
      for (float r : ours(sum, sampler)) {
        const double steps = static_cast<double>(r) / grid - static_cast<double>(at);
        ASSERT_EQ(steps, std::floor(steps));
      }
    }
  }
}

}  // namespace
}  // namespace hushgrad
