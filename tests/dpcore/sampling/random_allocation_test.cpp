#include "dpcore/sampling/random_allocation.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>

#include "dpcore/error.h"
#include "dpcore/random/statistics.h"

namespace hushgrad {
namespace {

std::vector<Batch> epoch_of(RandomAllocationSampler& sampler, Csprng& rng) {
  std::vector<Batch> epoch;
  for (std::int64_t step = 0; step < sampler.steps_per_epoch(); ++step) epoch.push_back(sampler.draw(rng));
  return epoch;
}

// The steps of two records: every pair of choices equally likely, so records are independent. False alarm 1e-6 each.
TEST(RandomAllocationSampler, RecordsChooseTheirStepsUniformlyAndIndependently) {
  constexpr std::int64_t epochs = 100'000;
  for (auto [steps, participations, choices] : {std::tuple{5, 1, 5}, {4, 2, 6}, {3, 3, 1}}) {
    RandomAllocationSampler sampler(2, steps, participations);
    Csprng rng;
    std::map<std::pair<unsigned, unsigned>, std::int64_t> seen;
    for (std::int64_t i = 0; i < epochs; ++i) {
      unsigned chosen[2] = {0, 0};
      const std::vector<Batch> epoch = epoch_of(sampler, rng);
      for (unsigned step = 0; step < epoch.size(); ++step) {
        for (std::int64_t record : epoch[step]) chosen[record] |= 1u << step;
      }
      for (unsigned set : chosen) ASSERT_EQ(__builtin_popcount(set), participations);
      ++seen[{chosen[0], chosen[1]}];
    }
    ASSERT_EQ(seen.size(), static_cast<std::size_t>(choices * choices));
    if (choices == 1) continue;
    std::vector<std::int64_t> counts;
    for (const auto& [pair, count] : seen) counts.push_back(count);
    const std::vector<long double> masses(counts.size(), 1.0L / static_cast<long double>(counts.size()));
    EXPECT_GT(testing::chi_square_p(counts, masses, epochs), testing::kFalseAlarm);
  }
}

TEST(RandomAllocationSampler, EveryRecordTakesPartAsOftenAsStated) {
  Csprng rng;
  RandomAllocationSampler sampler(1000, 7, 3);
  for (int repeat = 0; repeat < 3; ++repeat) {
    std::vector<int> times(1000);
    for (const Batch& batch : epoch_of(sampler, rng)) {
      EXPECT_TRUE(std::is_sorted(batch.begin(), batch.end(), std::less_equal<>()));
      for (std::int64_t record : batch) ++times[static_cast<std::size_t>(record)];
    }
    EXPECT_EQ(times, std::vector<int>(1000, 3));
  }
  EXPECT_EQ(sampler.epoch(), 3);
  EXPECT_DOUBLE_EQ(sampler.expected_batch_size(), 3000.0 / 7);
}

TEST(RandomAllocationSampler, EmptyBatchesHappen) {
  Csprng rng;
  RandomAllocationSampler sampler(1, 5);
  std::size_t members = 0, empty = 0;
  for (const Batch& batch : epoch_of(sampler, rng)) {
    members += batch.size();
    empty += batch.empty() ? 1 : 0;
  }
  EXPECT_EQ(members, 1u);
  EXPECT_EQ(empty, 4u);
}

TEST(RandomAllocationSampler, Refuses) {
  EXPECT_THROW(RandomAllocationSampler(0, 1), InvalidArgument);
  EXPECT_THROW(RandomAllocationSampler(5, 0), InvalidArgument);
  EXPECT_THROW(RandomAllocationSampler(5, 4, 5), InvalidArgument);
  EXPECT_THROW(RandomAllocationSampler(5, 4, 0), InvalidArgument);
  EXPECT_THROW(RandomAllocationSampler(std::int64_t{1} << 41, 4), InvalidArgument);
}

}  // namespace
}  // namespace hushgrad
