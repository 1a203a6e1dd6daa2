#include "dpcore/sampling/shuffled.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>

#include "dpcore/error.h"
#include "dpcore/random/statistics.h"

namespace hushgrad {
namespace {

TEST(ShuffledSampler, EveryOrderIsEquallyLikely) {
  constexpr std::int64_t draws = 120'000;
  ShuffledSampler sampler(5, 5);
  Csprng rng;
  std::map<Batch, std::size_t> number;
  std::vector<std::int64_t> counts(120);
  for (std::int64_t i = 0; i < draws; ++i) {
    const auto at = number.emplace(sampler.draw(rng), number.size()).first->second;
    ASSERT_LT(at, 120u);
    ++counts[at];
  }
  EXPECT_GT(testing::chi_square_p(counts, std::vector<long double>(120, 1 / 120.0L), draws), testing::kFalseAlarm);
}

TEST(ShuffledSampler, EveryRecordComesOnceAnEpoch) {
  Csprng rng;
  for (Order order : {Order::shuffled, Order::sequential}) {
    ShuffledSampler sampler(103, 10, order);
    ASSERT_EQ(sampler.steps_per_epoch(), 11);
    Batch last;
    for (int epoch = 1; epoch <= 3; ++epoch) {
      Batch seen;
      for (int step = 0; step < 11; ++step) {
        const Batch batch = sampler.draw(rng);
        EXPECT_EQ(batch.size(), step < 10 ? 10u : 3u);
        EXPECT_EQ(sampler.epoch(), epoch);
        seen.insert(seen.end(), batch.begin(), batch.end());
      }
      EXPECT_EQ(std::is_sorted(seen.begin(), seen.end()), order == Order::sequential);
      EXPECT_EQ(seen == last, order == Order::sequential && epoch > 1);
      last = seen;
      std::sort(seen.begin(), seen.end());
      Batch all(103);
      std::iota(all.begin(), all.end(), 0);
      EXPECT_EQ(seen, all);
    }
  }
}

TEST(ShuffledSampler, AnEpochMayBeLeftEarly) {
  Csprng rng;
  ShuffledSampler sampler(20, 5, Order::sequential);
  EXPECT_EQ(sampler.epoch(), 0);
  EXPECT_EQ(sampler.draw(rng).front(), 0);
  EXPECT_EQ(sampler.draw(rng).front(), 5);
  sampler.begin_epoch(rng);
  EXPECT_EQ(sampler.epoch(), 2);
  EXPECT_EQ(sampler.draw(rng).front(), 0);
  EXPECT_EQ(sampler.epoch(), 2);
}

TEST(ShuffledSampler, Refuses) {
  EXPECT_THROW(ShuffledSampler(0, 1), InvalidArgument);
  EXPECT_THROW(ShuffledSampler(5, 6), InvalidArgument);
  EXPECT_THROW(ShuffledSampler(5, 0), InvalidArgument);
}

}  // namespace
}  // namespace hushgrad
