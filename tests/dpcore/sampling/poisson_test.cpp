#include "dpcore/sampling/poisson.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "dpcore/error.h"
#include "dpcore/random/exact.h"
#include "dpcore/random/insecure_seed.h"
#include "dpcore/random/statistics.h"
#include "dpcore/random/word_stream.h"

namespace hushgrad {
namespace {

using testing::chi_square_p;
using testing::kFalseAlarm;

// Word for word what the definition takes: a fraction that was rounded to a double, or to thousandths, differs for some record
// here, where frequencies would show it after 10^7 records at best.
TEST(PoissonSampler, TakesTheFractionItself) {
  for (const auto& [numerator, denominator] : {std::pair<std::int64_t, std::int64_t>{1, 3}, {12, 49}, {333, 1000}, {1, 97}, {64, 6'000'001}}) {
    const SamplingRate rate(numerator, denominator);
    const std::int64_t population = 200'000;
    InsecureSeed one(5), other(5);
    PoissonSampler sampler(population, rate);
    WordStream words(other.stream());
    const Geometric distance(rate);
    Batch expected;
    if (denominator / numerator < 64) {
      for (std::int64_t record = 0; record < population; ++record) {
        if (bernoulli(words, static_cast<std::uint64_t>(numerator), static_cast<std::uint64_t>(denominator))) expected.push_back(record);
      }
    } else {
      for (std::int64_t record = distance.draw(words, population); record < population; ++record) {
        expected.push_back(record);
        record += distance.draw(words, population - record - 1);
      }
    }
    EXPECT_EQ(sampler.draw(one.stream()), expected) << numerator << "/" << denominator;
  }
}

// Includes empty batches (mass 0.015 or more in each case). False alarm 1e-6 each.
TEST(PoissonSampler, SizesAreBinomial) {
  constexpr std::int64_t draws = 100'000;
  struct Case {
    std::int64_t population, numerator, denominator;
  };
  // By record, by distance, by distance in a population that is never walked through.
  for (const Case& c : {Case{40, 1, 10}, Case{300, 1, 100}, Case{1'000'000'000, 4, 1'000'000'000}}) {
    PoissonSampler sampler(c.population, {c.numerator, c.denominator});
    const long double q = static_cast<long double>(c.numerator) / c.denominator;
    Csprng rng;
    std::vector<std::int64_t> counts(41);
    for (int i = 0; i < draws; ++i) ++counts[std::min<std::size_t>(sampler.draw(rng).size(), 40)];
    std::vector<long double> masses(41);
    const auto n = static_cast<long double>(c.population);
    for (int k = 0; k <= 40; ++k) {
      const long double choose = std::lgamma(n + 1) - std::lgamma(k + 1.0L) - std::lgamma(n - k + 1);
      masses[static_cast<std::size_t>(k)] = std::exp(choose + k * std::log(q) + (n - k) * std::log1p(-q));
    }
    EXPECT_GT(counts[0], 0);
    EXPECT_GT(chi_square_p(counts, masses, draws), kFalseAlarm) << c.population;
  }
}

// Where a member lies in a large population: uniform over a thousand cells.
TEST(PoissonSampler, MembersAreSpreadEvenly) {
  const std::int64_t population = 1'000'000'000;
  PoissonSampler sampler(population, {1000, population});
  Csprng rng;
  std::vector<std::int64_t> counts(1000);
  std::int64_t members = 0;
  for (int i = 0; i < 100; ++i) {
    const Batch batch = sampler.draw(rng);
    EXPECT_TRUE(std::is_sorted(batch.begin(), batch.end(), std::less_equal<>()));
    for (std::int64_t record : batch) ++counts[static_cast<std::size_t>(record / 1'000'000)];
    members += static_cast<std::int64_t>(batch.size());
  }
  EXPECT_GT(chi_square_p(counts, std::vector<long double>(1000, 1e-3L), members), kFalseAlarm);
  EXPECT_NEAR(members, 100'000, testing::kNormalLimit * std::sqrt(1e5));
}

// Each record as often as every other; records of one draw, and one record in two draws, independent.
// False alarm 1e-6 for each of the three statistics.
void inclusions_are_independent(std::int64_t numerator, std::int64_t denominator, std::int64_t draws) {
  constexpr std::int64_t n = 16;
  const double q = static_cast<double>(numerator) / static_cast<double>(denominator);
  PoissonSampler sampler(n, {numerator, denominator});
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

TEST(PoissonSampler, InclusionsAreIndependentOverRecordsAndDraws) {
  inclusions_are_independent(3, 10, 200'000);    // by record
  inclusions_are_independent(1, 70, 1'000'000);  // by distance
}

TEST(PoissonSampler, RateOneTakesEveryRecord) {
  Csprng rng;
  Batch all(5000);
  std::iota(all.begin(), all.end(), 0);
  EXPECT_EQ(PoissonSampler(5000, {1, 1}).draw(rng), all);
}

TEST(PoissonSampler, BatchesAreAscendingAndInRange) {
  Csprng rng;
  for (std::int64_t denominator : {5, 500}) {
    const Batch batch = PoissonSampler(100'000, {1, denominator}).draw(rng);
    EXPECT_TRUE(std::is_sorted(batch.begin(), batch.end(), std::less_equal<>()));
    EXPECT_GE(batch.front(), 0);
    EXPECT_LT(batch.back(), 100'000);
  }
}

TEST(PoissonSampler, EmptyBatchesHappenAndAreLegal) {
  Csprng rng;
  PoissonSampler one_record(1, {1, 2});
  int empty = 0;
  for (int i = 0; i < 1000; ++i) empty += one_record.draw(rng).empty() ? 1 : 0;
  EXPECT_NEAR(empty, 500, testing::kNormalLimit * std::sqrt(250.0));
  EXPECT_TRUE(PoissonSampler(1000, {1, SamplingRate::max_denominator}).draw(rng).empty());  // otherwise 2^-52
}

TEST(PoissonSampler, EpochsLoseNoStepToRounding) {
  for (std::int64_t n = 1; n <= 2000; ++n) {  // in floating point 1 / (1 / n) falls below n for 93, 99, 105, ...
    EXPECT_EQ(PoissonSampler(n, {1, n}).steps_per_epoch(), n);
    EXPECT_EQ(PoissonSampler(n, {n, n}).steps_per_epoch(), 1);
  }
  EXPECT_EQ(PoissonSampler(100, {7, 100}).steps_per_epoch(), 15);
  EXPECT_DOUBLE_EQ(PoissonSampler(100, {7, 100}).expected_batch_size(), 7.0);
}

TEST(PoissonSampler, RefusesAnEmptyPopulation) {
  EXPECT_THROW(PoissonSampler(0, {1, 2}), InvalidArgument);
  EXPECT_THROW(PoissonSampler(-1, {1, 2}), InvalidArgument);
}

}  // namespace
}  // namespace hushgrad
