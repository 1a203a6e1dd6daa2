#include "dpcore/sampling/poisson.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "dpcore/error.h"
#include "dpcore/random/insecure_seed.h"
#include "dpcore/random/statistics.h"

namespace hushgrad {
namespace {

using testing::chi_square_p;
using testing::kFalseAlarm;

// Exactly floor(rate * 2^64) draws are taken: the last of them is, the next is not.
TEST(InclusionRule, TakesExactlyTheRateRoundedDown) {
  for (double rate : {0x1p-64, 0x1.8p-64, 3 * 0x1p-64, 0.1, 0.5, 2.0 / 3, std::nextafter(1.0, 0.0)}) {
    const auto taken = static_cast<std::uint64_t>(static_cast<long double>(rate) * 0x1p64L);
    const InclusionRule rule(rate);
    EXPECT_FALSE(rule.never());
    EXPECT_TRUE(rule.takes(0));
    EXPECT_TRUE(rule.takes(taken - 1)) << rate;
    EXPECT_FALSE(rule.takes(taken)) << rate;
  }
  EXPECT_TRUE(InclusionRule(1.0).takes(std::numeric_limits<std::uint64_t>::max()));
  EXPECT_TRUE(InclusionRule(0x1.fffffffffffffp-65).never());
}

// The definition, one record at a time. long double holds both a 64-bit draw and rate * 2^64 without
// rounding.
std::vector<std::int64_t> naive(std::int64_t population, double rate, Csprng& rng) {
  const long double included = std::floor(static_cast<long double>(rate) * 0x1p64L);
  std::vector<std::int64_t> batch;
  std::vector<std::uint64_t> words(2048);  // requested in the same portions, to see the same stream
  for (std::int64_t i = 0; i < population; ++i) {
    const auto at = static_cast<std::size_t>(i % 2048);
    const auto left = static_cast<std::size_t>(std::min<std::int64_t>(2048, population - i));
    if (at == 0) rng.fill(std::as_writable_bytes(std::span(words).first(left)));
    if (static_cast<long double>(words[at]) < included) batch.push_back(i);
  }
  return batch;
}

TEST(PoissonSampler, IsTheDefinition) {
  for (double rate : {0.1, 1.0 / 3, 0.999, std::nextafter(1.0, 0.0), 1.0, 0x1p-10, 3e-4}) {
    for (std::int64_t population : {1, 2, 2047, 2048, 2049, 10'000}) {
      InsecureSeed fast(5), slow(5);
      EXPECT_EQ(PoissonSampler(population, rate).draw(fast.stream()), naive(population, rate, slow.stream()))
          << rate << " " << population;
    }
  }
}

// Sizes ~ Binomial(40, 0.1) exactly; includes empty batches (mass 0.0148).
TEST(PoissonSampler, SizesAreBinomial) {
  constexpr std::int64_t n = 40, draws = 200'000;
  constexpr long double q = 0.1L;
  const PoissonSampler sampler(n, 0.1);
  Csprng rng;
  std::vector<std::int64_t> counts(n + 1);
  for (int i = 0; i < draws; ++i) ++counts[sampler.draw(rng).size()];
  std::vector<long double> masses(n + 1);
  for (int k = 0; k <= n; ++k) {
    const long double choose = std::lgamma(n + 1.0L) - std::lgamma(k + 1.0L) - std::lgamma(n - k + 1.0L);
    masses[static_cast<std::size_t>(k)] = std::exp(choose + k * std::log(q) + (n - k) * std::log1p(-q));
  }
  EXPECT_GT(counts[0], 0);
  EXPECT_GT(chi_square_p(counts, masses, draws), kFalseAlarm);
}

// Each record as often as every other; records of one draw, and one record in two draws, independent.
// False alarm 1e-6 for each of the three statistics.
TEST(PoissonSampler, InclusionsAreIndependentOverRecordsAndDraws) {
  constexpr std::int64_t n = 16;
  constexpr std::int64_t draws = 200'000;
  constexpr double q = 0.3;
  const PoissonSampler sampler(n, q);
  Csprng rng;
  std::vector<std::int64_t> together(4), over_time(4);
  std::vector<double> frequency(n);
  std::vector<char> last(n), now(n);
  for (std::int64_t t = 0; t < draws; ++t) {
    std::fill(now.begin(), now.end(), 0);
    for (std::int64_t i : sampler.draw(rng)) now[static_cast<std::size_t>(i)] = 1;
    for (std::size_t i = 0; i < n; ++i) frequency[i] += now[i];
    // Disjoint pairs, so that the table's entries are independent of each other.
    for (std::size_t i = 0; i < n; i += 2) ++together[static_cast<std::size_t>(2 * now[i] + now[i + 1])];
    if (t % 2 == 1) {
      for (std::size_t i = 0; i < n; ++i) ++over_time[static_cast<std::size_t>(2 * last[i] + now[i])];
    }
    last = now;
  }
  const std::vector<long double> table{(1 - q) * (1 - q), q * (1 - q), q * (1 - q), q * q};
  EXPECT_GT(chi_square_p(together, table, draws * n / 2), kFalseAlarm);
  EXPECT_GT(chi_square_p(over_time, table, draws / 2 * n), kFalseAlarm);
  double statistic = 0;
  for (double f : frequency) statistic += (f - q * draws) * (f - q * draws) / (q * (1 - q) * draws);
  EXPECT_GT(testing::gamma_tail(n / 2.0L, statistic / 2), kFalseAlarm);
}

TEST(PoissonSampler, RateOneTakesEveryRecord) {
  Csprng rng;
  std::vector<std::int64_t> all(5000);
  std::iota(all.begin(), all.end(), 0);
  EXPECT_EQ(PoissonSampler(5000, 1.0).draw(rng), all);
}

TEST(PoissonSampler, BatchesAreAscendingAndInRange) {
  Csprng rng;
  const auto batch = PoissonSampler(100'000, 0.2).draw(rng);
  EXPECT_TRUE(std::is_sorted(batch.begin(), batch.end(), std::less_equal<>()));
  EXPECT_GE(batch.front(), 0);
  EXPECT_LT(batch.back(), 100'000);
}

TEST(PoissonSampler, EmptyBatchesHappenAndAreLegal) {
  Csprng rng;
  const PoissonSampler one_record(1, 0.5);
  int empty = 0;
  for (int i = 0; i < 1000; ++i) empty += one_record.draw(rng).empty() ? 1 : 0;
  EXPECT_NEAR(empty, 500, testing::kNormalLimit * std::sqrt(250.0));
  EXPECT_TRUE(PoissonSampler(1000, 0x1p-65).draw(rng).empty());  // below one draw in 2^64
  EXPECT_TRUE(PoissonSampler(1000, std::numeric_limits<double>::denorm_min()).draw(rng).empty());
}

TEST(PoissonSampler, RefusesWhatIsNoProbability) {
  for (double rate :
       {0.0, -0.0, -0.1, 1.0000000000000002, std::nan(""), std::numeric_limits<double>::infinity()}) {
    EXPECT_THROW(PoissonSampler(10, rate), InvalidArgument) << rate;
  }
  EXPECT_THROW(PoissonSampler(0, 0.5), InvalidArgument);
  EXPECT_THROW(PoissonSampler(-1, 0.5), InvalidArgument);
}

}  // namespace
}  // namespace hushgrad
