#include "accounting/batch_law.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <vector>

#include "accounting/accountants/accountant.h"
#include "dpcore/error.h"

namespace hushgrad {
namespace {

constexpr Sampling kAll[] = {Sampling::poisson, Sampling::shuffled, Sampling::sequential};

TEST(BatchLaw, SamplerAndEventAreOfOneLaw) {
  for (Sampling sampling : kAll) {
    const BatchLaw law{sampling, 103, 10};
    const auto sampler = law.make_sampler();
    EXPECT_EQ(sampler->population(), 103);
    EXPECT_EQ(sampler->steps_per_epoch(), law.steps_per_epoch());
    EXPECT_DOUBLE_EQ(sampler->expected_batch_size(), 10);
    EXPECT_EQ(law.charged_once_an_epoch(), sampling == Sampling::shuffled);
    EXPECT_EQ(dynamic_cast<EpochSampler*>(sampler.get()) != nullptr, sampling != Sampling::poisson);
    EXPECT_EQ(law.event(0.0), Event::non_private());
    EXPECT_EQ(sampling_from(name_of(sampling)), sampling);
  }
}

TEST(BatchLaw, PoissonIsChargedWithItsOwnRateRoundedUp) {
  const BatchLaw law{Sampling::poisson, 3, 1};
  const Event event = law.event(1.5);
  EXPECT_EQ(event, Event::poisson_sampled(SamplingRate(1, 3).charged(), Event::gaussian(1.5)));
  EXPECT_GE(event.sampling_probability() * 3, 1.0);
}

// One record more: the batches of an epoch, as vectors with a coordinate for each record, move by this at most.
double moved(const std::vector<Batch>& without, const std::vector<Batch>& with) {
  std::map<std::int64_t, int> difference;
  double squares = 0;
  for (std::size_t step = 0; step < std::max(without.size(), with.size()); ++step) {
    difference.clear();
    if (step < without.size()) for (std::int64_t record : without[step]) --difference[record];
    if (step < with.size()) for (std::int64_t record : with[step]) ++difference[record];
    int records = 0;  // each contributes C, in the worst case all in one direction
    for (const auto& [record, change] : difference) records += std::abs(change);
    squares += records * records;
  }
  return std::sqrt(squares);
}

std::vector<Batch> cut(const Batch& order, std::size_t batch_size) {
  std::vector<Batch> batches;
  for (std::size_t at = 0; at < order.size(); at += batch_size) {
    batches.emplace_back(order.begin() + static_cast<std::ptrdiff_t>(at), order.begin() + static_cast<std::ptrdiff_t>(std::min(order.size(), at + batch_size)));
  }
  return batches;
}

// Every order of n records is paired with orders of n + 1 in which the new record takes a place, and whoever had it goes last.
// The pairing is onto and even: each order of n + 1 comes from exactly one order of n.
TEST(BatchLaw, AShuffledEpochMovesByTheRootOfFive) {
  const double charged = 1 / BatchLaw{Sampling::shuffled, 6, 2}.event(1.0).noise_multiplier();
  EXPECT_GE(charged * charged, 5.0);
  EXPECT_LT(charged * charged, 5.0 + 1e-14);
  for (std::size_t batch_size : {1u, 2u, 3u, 5u}) {
    Batch order{0, 1, 2, 3, 4, 5};
    std::set<Batch> reached;
    double worst = 0;
    do {
      for (std::size_t place = 0; place <= order.size(); ++place) {
        Batch with = order;
        with.push_back(6);
        std::swap(with[place], with.back());
        reached.insert(with);
        worst = std::max(worst, moved(cut(order, batch_size), cut(with, batch_size)));
      }
    } while (std::next_permutation(order.begin(), order.end()));
    EXPECT_EQ(reached.size(), 5040u);
    EXPECT_LE(worst, charged);
    if (batch_size > 1) EXPECT_NEAR(worst, std::sqrt(5.0), 1e-12);
  }
}

TEST(BatchLaw, ASequentialEpochMovesInEveryStep) {
  const BatchLaw law{Sampling::sequential, 1000, 10};
  EXPECT_EQ(law.event(3.0), Event::gaussian(1.5));
  EXPECT_FALSE(law.charged_once_an_epoch());
  const Batch order{0, 1, 2, 3, 4, 5, 7, 8}, with{9, 0, 1, 2, 3, 4, 5, 7, 8};
  EXPECT_NEAR(moved(cut(order, 4), cut(with, 4)), std::sqrt(4.0 + 4.0 + 1.0), 1e-12);  // more than the root of five
}

TEST(BatchLaw, RefusesWhatIsNoLaw) {
  for (Sampling sampling : kAll) {
    for (auto [n, b] : {std::pair<std::int64_t, std::int64_t>{0, 0}, {10, 0}, {10, 11}, {-1, -1}, {(std::int64_t{1} << 62) + 1, 1}}) {
      EXPECT_THROW((BatchLaw{sampling, n, b}.check()), InvalidArgument) << n << " " << b;
      EXPECT_THROW((BatchLaw{sampling, n, b}.make_sampler()), InvalidArgument);
    }
  }
  EXPECT_THROW(sampling_from("weighted"), InvalidArgument);
}

}  // namespace
}  // namespace hushgrad
