#include "dpcore/sampling/users.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "dpcore/error.h"
#include "dpcore/random/statistics.h"

namespace hushgrad {
namespace {

// Owner 30 has one record, -7 three, 4 five.
const std::vector<std::int64_t> kOwners{4, -7, 4, 30, 4, -7, 4, -7, 4};

TEST(UserRecords, GroupsByOwner) {
  const UserRecords users(kOwners, 2);
  ASSERT_EQ(users.users(), 3);
  const auto records = [&](std::int64_t user) { return Batch(users.records_of(user).begin(), users.records_of(user).end()); };
  EXPECT_EQ(records(0), (Batch{1, 5, 7}));
  EXPECT_EQ(records(1), (Batch{0, 2, 4, 6, 8}));
  EXPECT_EQ(records(2), (Batch{3}));
  EXPECT_THROW(UserRecords({}, 1), InvalidArgument);
  EXPECT_THROW(UserRecords(kOwners, 0), InvalidArgument);
}

// A user's records come together or not at all, users independently, and of those with more than two every pair alike.
TEST(UserSampler, TakesUsersIndependentlyWithUniformContributions) {
  constexpr std::int64_t draws = 100'000;
  UserSampler sampler(UserRecords(kOwners, 2), {1, 3});
  Csprng rng;
  std::vector<std::int64_t> together(8);
  std::map<Batch, std::int64_t> of_user_1;
  for (std::int64_t i = 0; i < draws; ++i) {
    const UserSampler::Draw draw = sampler.draw(rng);
    std::size_t at = 0;
    unsigned present = 0;
    for (std::int64_t size : draw.sizes) {
      const Batch records(draw.records.begin() + static_cast<std::ptrdiff_t>(at),
                          draw.records.begin() + static_cast<std::ptrdiff_t>(at) + size);
      at += static_cast<std::size_t>(size);
      const std::int64_t owner = kOwners[static_cast<std::size_t>(records[0])];
      for (std::int64_t record : records) ASSERT_EQ(kOwners[static_cast<std::size_t>(record)], owner);
      ASSERT_EQ(size, owner == 30 ? 1 : 2);
      present |= owner == -7 ? 1u : owner == 4 ? 2u : 4u;
      if (owner == 4) ++of_user_1[records];
    }
    ASSERT_EQ(at, draw.records.size());
    ++together[present];
  }
  std::vector<long double> masses(8);
  for (unsigned set = 0; set < 8; ++set) {
    masses[set] = 1;
    for (unsigned user = 0; user < 3; ++user) masses[set] *= (set >> user & 1) ? 1 / 3.0L : 2 / 3.0L;
  }
  EXPECT_GT(testing::chi_square_p(together, masses, draws), testing::kFalseAlarm);
  ASSERT_EQ(of_user_1.size(), 10u);
  std::vector<std::int64_t> pairs;
  std::int64_t total = 0;
  for (const auto& [records, count] : of_user_1) {
    pairs.push_back(count);
    total += count;
  }
  EXPECT_GT(testing::chi_square_p(pairs, std::vector<long double>(10, 0.1L), total), testing::kFalseAlarm);
}

TEST(UserSampler, CountsInUsers) {
  const UserSampler sampler(UserRecords(kOwners, 2), {1, 3});
  EXPECT_DOUBLE_EQ(sampler.expected_batch_size(), 1.0);
  EXPECT_EQ(sampler.steps_per_epoch(), 3);
}

}  // namespace
}  // namespace hushgrad
