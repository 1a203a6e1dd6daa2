#include "dpcore/sampling/fixed_size.h"

#include <gtest/gtest.h>

#include <map>
#include <numeric>

#include "dpcore/error.h"
#include "dpcore/random/statistics.h"

namespace hushgrad {
namespace {

// Every one of the C(6, 3) = 20 sets equally often; false alarm 1e-6. Two batches in a row share nothing: 400 pairs.
TEST(FixedSizeSampler, EverySetIsEquallyLikelyAndIndependent) {
  constexpr std::int64_t draws = 200'000;
  FixedSizeSampler sampler(6, 3);
  Csprng rng;
  std::map<Batch, std::size_t> number;
  std::vector<std::int64_t> counts(20), pairs(400);
  std::size_t last = 0;
  for (std::int64_t i = 0; i < draws; ++i) {
    const Batch batch = sampler.draw(rng);
    ASSERT_TRUE(batch.size() == 3 && batch[0] < batch[1] && batch[1] < batch[2] && batch[0] >= 0 && batch[2] < 6);
    const std::size_t now = number.emplace(batch, number.size()).first->second;
    ASSERT_LT(now, 20u);
    ++counts[now];
    if (i % 2 == 1) ++pairs[20 * last + now];
    last = now;
  }
  EXPECT_GT(testing::chi_square_p(counts, std::vector<long double>(20, 0.05L), draws), testing::kFalseAlarm);
  EXPECT_GT(testing::chi_square_p(pairs, std::vector<long double>(400, 0.0025L), draws / 2), testing::kFalseAlarm);
}

TEST(FixedSizeSampler, Edges) {
  Csprng rng;
  Batch all(50);
  std::iota(all.begin(), all.end(), 0);
  EXPECT_EQ(FixedSizeSampler(50, 50).draw(rng), all);
  EXPECT_EQ(FixedSizeSampler(std::int64_t{1} << 62, 10).draw(rng).size(), 10u);
  EXPECT_EQ(FixedSizeSampler(50, 7).steps_per_epoch(), 8);
  EXPECT_THROW(FixedSizeSampler(50, 51), InvalidArgument);
  EXPECT_THROW(FixedSizeSampler(50, 0), InvalidArgument);
  EXPECT_THROW(FixedSizeSampler(0, 0), InvalidArgument);
}

}  // namespace
}  // namespace hushgrad
