#include "dpcore/sampling/truncated_poisson.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "dpcore/error.h"
#include "dpcore/random/statistics.h"

namespace hushgrad {
namespace {

using testing::chi_square_p;
using testing::kFalseAlarm;

// By symmetry a batch is determined by its set of members; with four records and at most two in a batch there are eleven.
// Masses: Poisson (Bernoulli) mass of every set, spread evenly over its subsets of two if it is larger.
TEST(TruncatedPoissonSampler, HasTheStatedLawOfSets) {
  constexpr std::int64_t draws = 300'000;
  const long double q = 0.4L;
  std::vector<long double> masses(16);
  for (unsigned set = 0; set < 16; ++set) {
    const int size = __builtin_popcount(set);
    const long double mass = std::pow(q, size) * std::pow(1 - q, 4 - size);
    if (size <= 2) {
      masses[set] += mass;
      continue;
    }
    const int pairs = size * (size - 1) / 2;
    for (unsigned pair = 0; pair < 16; ++pair) {
      if (__builtin_popcount(pair) == 2 && (pair & set) == pair) masses[pair] += mass / pairs;
    }
  }
  TruncatedPoissonSampler sampler(4, {2, 5}, 2);
  Csprng rng;
  std::vector<std::int64_t> counts(16);
  for (std::int64_t i = 0; i < draws; ++i) {
    unsigned set = 0;
    const Batch batch = sampler.draw(rng);
    EXPECT_TRUE(std::is_sorted(batch.begin(), batch.end(), std::less_equal<>()));
    for (std::int64_t record : batch) set |= 1u << record;
    ++counts[set];
  }
  for (unsigned set = 0; set < 16; ++set) EXPECT_EQ(counts[set] == 0, __builtin_popcount(set) > 2);
  EXPECT_GT(chi_square_p(counts, masses, draws), kFalseAlarm);
}

TEST(TruncatedPoissonSampler, AWideLimitChangesNothingAndOneIsTheLeast) {
  Csprng rng;
  TruncatedPoissonSampler wide(100, {1, 1}, 1000), narrow(100, {1, 1}, 1);
  EXPECT_EQ(wide.draw(rng).size(), 100u);
  EXPECT_EQ(narrow.draw(rng).size(), 1u);
  EXPECT_EQ(narrow.expected_batch_size(), 100.0);
  EXPECT_THROW(TruncatedPoissonSampler(100, {1, 10}, 0), InvalidArgument);
}

}  // namespace
}  // namespace hushgrad
