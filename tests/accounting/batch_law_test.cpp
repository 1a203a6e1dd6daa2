#include "accounting/batch_law.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "accounting/accountants/accountant.h"
#include "dpcore/error.h"

namespace hushgrad {
namespace {

constexpr Sampling kAll[] = {Sampling::poisson, Sampling::truncated_poisson, Sampling::fixed_size, Sampling::random_allocation,
                             Sampling::shuffled, Sampling::sequential, Sampling::users};

std::shared_ptr<const UserRecords> owners(std::int64_t users) {
  std::vector<std::int64_t> ids;
  for (std::int64_t user = 0; user < users; ++user) ids.insert(ids.end(), static_cast<std::size_t>(1 + user % 3), user);
  return std::make_shared<const UserRecords>(ids, 2);
}

BatchLaw law_of(Sampling sampling, std::int64_t population, std::int64_t batch_size) {
  BatchLaw law{sampling, population, batch_size};
  if (sampling == Sampling::truncated_poisson) law.max_batch_size = 2 * batch_size;
  if (sampling == Sampling::users && population > 0 && population < 1000) law.users = owners(population);
  return law;
}

TEST(BatchLaw, SamplerAndEventAreOfOneLaw) {
  for (Sampling sampling : kAll) {
    const BatchLaw law = law_of(sampling, 103, 10);
    const auto sampler = law.make_sampler();
    EXPECT_EQ(sampler->population(), 103);
    EXPECT_EQ(sampler->steps_per_epoch(), law.steps_per_epoch());
    EXPECT_DOUBLE_EQ(sampler->expected_batch_size(), law.expected_batch_size());
    EXPECT_NEAR(law.expected_batch_size(), 10, sampling == Sampling::random_allocation ? 1 : 0);
    const bool epochs = sampling == Sampling::shuffled || sampling == Sampling::random_allocation;
    EXPECT_EQ(law.charged_once_an_epoch(), epochs);
    EXPECT_EQ(dynamic_cast<EpochSampler*>(sampler.get()) != nullptr, epochs || sampling == Sampling::sequential);
    EXPECT_EQ(law.event(0.0), Event::non_private());
    EXPECT_EQ(sampling_from(name_of(sampling)), sampling);
  }
}

TEST(BatchLaw, EventsAreThoseOfTheTable) {
  const double q = SamplingRate(10, 103).charged();
  EXPECT_EQ(law_of(Sampling::poisson, 103, 10).event(3), Event::poisson_sampled(q, Event::gaussian(3)));
  EXPECT_EQ(law_of(Sampling::users, 103, 10).event(3), Event::poisson_sampled(q, Event::gaussian(3)));
  EXPECT_EQ(law_of(Sampling::truncated_poisson, 103, 10).event(3), Event::truncated_subsampled_gaussian(103, q, 20, 3));
  EXPECT_EQ(law_of(Sampling::fixed_size, 103, 10).event(3), Event::poisson_sampled(q, Event::gaussian(1.5)));
  EXPECT_EQ(law_of(Sampling::random_allocation, 103, 10).event(3), Event::balls_in_bins(11, Event::gaussian(3)));
}

// Exactly one of a few records is more in the larger data set; the batch is every set of two with the same probability. Taking the
// new record away and putting another in its place couples the two laws, and moves the batch by two records.
TEST(BatchLaw, AFixedSizeMovesByTwoWithTheProbabilityOfTheBatch) {
  constexpr int n = 7, b = 2;  // records 0..6, of which 6 is new
  int with = 0, all = 0;
  std::map<std::pair<int, int>, int> coupled;  // how often each set without the record comes
  for (int i = 0; i < n; ++i) {
    for (int j = i + 1; j < n; ++j) {
      ++all;
      if (j < n - 1) {
        coupled[{i, j}] += n - b;  // as often as the choices below, so that all weights are whole
        continue;
      }
      ++with;
      for (int other = 0; other < n - 1; ++other) {
        if (other != i) ++coupled[{std::min(i, other), std::max(i, other)}];
      }
    }
  }
  EXPECT_DOUBLE_EQ(static_cast<double>(with) / all, static_cast<double>(b) / n);
  for (const auto& [set, count] : coupled) EXPECT_EQ(count, coupled.begin()->second);  // again uniform: the law of the smaller data set
  // Epsilon of the pair in words: the mixture that is 2 away with that probability.
  const BatchLaw law = law_of(Sampling::fixed_size, n, b);
  const Event pair = Event::mixture_of_gaussians(3, {0, 2}, {1 - 2.0 / 7, 2.0 / 7});
  EXPECT_NEAR(epsilon(law.event(3), 1e-5).upper, epsilon(pair, 1e-5).upper, 1e-3);
  // Under replace-one it is a bound of what sampling without replacement costs.
  const Event replaced = Event::sampled_without_replacement(n, b, Event::gaussian(3));
  EXPECT_GE(epsilon(law.event(3), 1e-5, "pld", Adjacency::replace_one).upper, epsilon(replaced, 1e-5, "pld", Adjacency::replace_one).lower);
}

TEST(BatchLaw, PrecisionIsThatOfEveryStepThatIsPaidFor) {
  const NoisePrecision precision{1024, 1e-6, 1e-20};
  for (Sampling sampling : kAll) {
    const BatchLaw law = law_of(sampling, 103, 10);
    const double steps = law.charged_once_an_epoch() ? 11 : 1;
    EXPECT_EQ(law.event(2, precision), Event::finite_precision(law.event(2), 1024, steps * 1e-6, steps * 1e-20));
    EXPECT_EQ(law.event(0, precision), Event::non_private());
    EXPECT_GT(epsilon(law.event(2, precision), 1e-5).upper, epsilon(law.event(2), 1e-5).upper);
  }
}

// With another noise multiplier for a part of the epoch the batches of the two halves are not independent of each other.
TEST(BatchLaw, AChangeWithinAnAllocatedEpochIsChargedWithoutAmplification) {
  const BatchLaw allocation = law_of(Sampling::random_allocation, 100, 10), shuffled = law_of(Sampling::shuffled, 100, 10);
  EXPECT_EQ(allocation.event_of_change(2, 3), Event::gaussian(2));
  EXPECT_EQ(allocation.event_of_change(3, 2), Event::gaussian(2));
  EXPECT_EQ(allocation.event_of_change(3, 0), Event::non_private());
  EXPECT_EQ(shuffled.event_of_change(3, 2), shuffled.event(2));
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
      EXPECT_THROW(law_of(sampling, n, b).check(), InvalidArgument) << n << " " << b;
      EXPECT_THROW(law_of(sampling, n, b).make_sampler(), InvalidArgument);
    }
  }
  EXPECT_THROW((BatchLaw{Sampling::truncated_poisson, 100, 10, 9}.check()), InvalidArgument);
  EXPECT_THROW((BatchLaw{Sampling::users, 100, 10}.check()), InvalidArgument);
  BatchLaw others{Sampling::users, 100, 10};
  others.users = owners(99);
  EXPECT_THROW(others.check(), InvalidArgument);
  EXPECT_THROW(sampling_from("weighted"), InvalidArgument);
}

}  // namespace
}  // namespace hushgrad
