// What every event keeps under every accountant and adjacency. A new event is one line in one_of_each() below; a new
// accountant is tested by registering it.
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "accounting/accountants/accountant.h"
#include "accounting/accountants/spending.h"
#include "dpcore/error.h"

namespace hushgrad {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kDelta = 1e-6;
// Grids of two questions differ by as much as an interval may be wide.
constexpr double kSlack = 1.5e-3;

// An event that spends less with more noise and more with more sampling; `rate` is unused where nothing is sampled.
struct Kind {
  std::string name;
  std::vector<Adjacency> answered;
  Event (*make)(double noise, double rate);
  bool sampled;
};

Event sampled(double q, double z) { return Event::poisson_sampled(q, Event::gaussian(z)); }
std::int64_t of(double rate, double n) { return static_cast<std::int64_t>(rate * n); }

const std::vector<Adjacency> kAll{Adjacency::add_or_remove_one, Adjacency::replace_one, Adjacency::zero_out};
const std::vector<Adjacency> kAddZero{Adjacency::add_or_remove_one, Adjacency::zero_out};
const std::vector<Adjacency> kReplaceZero{Adjacency::replace_one, Adjacency::zero_out};

std::vector<Kind> one_of_each() {
  return {
      {"Gaussian", kAll, [](double z, double) { return Event::gaussian(z); }, false},
      {"PoissonSampled", kAll, [](double z, double q) { return sampled(q, z); }, true},
      {"Laplace", kAll, [](double z, double) { return Event::laplace(z); }, false},
      {"SampledLaplace", kAddZero, [](double z, double q) { return Event::poisson_sampled(q, Event::laplace(z)); }, true},
      {"DiscreteGaussian", kAll, [](double z, double) { return Event::discrete_gaussian(3 * std::min(z, 20.0), 3); }, false},
      {"MixtureOfGaussians", kAddZero, [](double z, double q) { return Event::mixture_of_gaussians(z, {0, 0.5, 1}, {1 - q, q / 2, q / 2}); }, true},
      {"TruncatedSubsampledGaussian", kAll, [](double z, double q) { return Event::truncated_subsampled_gaussian(200, q, 30, z); }, true},
      {"SampledWithoutReplacement", kReplaceZero, [](double z, double q) { return Event::sampled_without_replacement(1000, of(q, 1000), Event::gaussian(z)); }, true},
      {"ShuffledEpoch", kAll, [](double z, double) { return Event::shuffled_epoch(Event::gaussian(z)); }, false},
      {"BallsInBins", kAddZero, [](double z, double q) { return Event::balls_in_bins(of(1 / q, 1), Event::gaussian(z)); }, true},
      {"MatrixFactorization", kAll, [](double z, double) { return Event::matrix_factorization(z, {1, 0.5, 0.25}, 12, 3, 4); }, false},
      {"TreeAggregation", kReplaceZero, [](double z, double) { return Event::tree_aggregation(z, {10, 7}); }, false},
      {"Group", kAddZero, [](double z, double q) { return Event::group(3, sampled(q, z)); }, true},
      {"AdaptiveClipping", kAll, [](double z, double) { return Event::adaptive_clipping(z, 4); }, false},
      {"RepeatAndSelect", kAll, [](double z, double q) { return Event::repeat_and_select(sampled(q, z), 5, 1); }, true},
      {"FinitePrecision", kAll, [](double z, double q) { return Event::finite_precision(sampled(q, z), 1 << 18, 1e-12, 1e-24); }, true},
      {"SelfComposed", kAll, [](double z, double q) { return Event::self_composed(sampled(q, z), 50); }, true},
      {"Composed", kAll, [](double z, double q) { return Event::composed({sampled(q, z), Event::gaussian(2 * z), Event::no_op()}); }, true},
  };
}

struct Setting {
  Kind kind;
  std::string accountant;
};

std::vector<Setting> all_settings() {
  std::vector<Setting> list;
  for (const Kind& kind : one_of_each()) {
    for (std::string_view name : accountant_names()) list.push_back({kind, std::string(name)});
  }
  return list;
}

class EventContract : public testing::TestWithParam<Setting> {
 protected:
  Event event(double noise = 2, double rate = 0.1) const { return GetParam().kind.make(noise, rate); }
  Interval epsilon_of(const Event& e, Adjacency adjacency, double at = kDelta) const {
    return checked(epsilon(e, at, GetParam().accountant, adjacency));
  }
  Interval delta_of(const Event& e, Adjacency adjacency, double at) const {
    const Interval interval = checked(delta(e, at, GetParam().accountant, adjacency));
    EXPECT_LE(interval.upper, 1);
    return interval;
  }
  static Interval checked(Interval interval) {
    EXPECT_FALSE(std::isnan(interval.lower) || std::isnan(interval.upper));
    EXPECT_LE(0, interval.lower);
    EXPECT_LE(interval.lower, interval.upper);
    return interval;
  }
  const std::vector<Adjacency>& answered() const { return GetParam().kind.answered; }
  // What does not depend on the adjacency is asked for one.
  std::vector<Adjacency> first() const { return {answered().front()}; }
};

TEST_P(EventContract, EveryAdjacencyIsAnsweredOrRefused) {
  for (Adjacency adjacency : kAll) {
    if (std::find(answered().begin(), answered().end(), adjacency) == answered().end()) {
      EXPECT_THROW(epsilon_of(event(), adjacency), Unsupported);
      EXPECT_THROW(delta_of(event(), adjacency, 1), Unsupported);
    } else {
      EXPECT_LT(epsilon_of(event(), adjacency).upper, kInfinity);
    }
  }
}

TEST_P(EventContract, LessNoiseMoreSamplingMoreRunsAndLessDeltaSpendMore) {
  for (Adjacency adjacency : first()) {
    const Interval base = epsilon_of(event(), adjacency);
    const double most = base.upper * (1 + kSlack) + 1e-12;
    EXPECT_LE(epsilon_of(event(3), adjacency).upper, most);
    EXPECT_LE(epsilon_of(event(), adjacency, 1e-4).upper, most);
    EXPECT_GE(epsilon_of(Event::self_composed(event(), 2), adjacency).upper, base.lower);
    EXPECT_GE(epsilon_of(Event::self_composed(event(), 2), adjacency).upper * (1 + kSlack), base.upper);
    if (GetParam().kind.sampled) EXPECT_LE(epsilon_of(event(2, 0.05), adjacency).upper, most);
    EXPECT_LE(delta_of(event(), adjacency, 2).upper, delta_of(event(), adjacency, 1).upper * (1 + 1e-9));
  }
}

TEST_P(EventContract, OrderAndNestingDoNotMatterAndCopiesAreRuns) {
  const Event other = sampled(0.2, 3);
  for (Adjacency adjacency : first()) {
    const Interval one = epsilon_of(Event::composed({event(), other, event()}), adjacency);
    for (const Event& same : {Event::composed({Event::self_composed(event(), 2), other}),
                              Event::composed({Event::composed({event()}), Event::no_op(), Event::composed({event(), Event::composed({other})})})}) {
      const Interval found = epsilon_of(same, adjacency);
      EXPECT_NEAR(found.lower, one.lower, 1e-9 * one.upper);
      EXPECT_NEAR(found.upper, one.upper, 1e-9 * one.upper);
    }
  }
}

TEST_P(EventContract, EpsilonAndDeltaAreInverse) {
  for (Adjacency adjacency : first()) {
    const Interval epsilon = epsilon_of(event(), adjacency);
    EXPECT_LE(delta_of(event(), adjacency, epsilon.upper).lower, kDelta * (1 + 1e-6));
    if (epsilon.lower > 0) EXPECT_GE(delta_of(event(), adjacency, epsilon.lower * (1 - 1e-9)).upper, kDelta * (1 - 1e-6));
    // Upper ends come from the same curve, up to the width of an interval.
    const double delta = delta_of(event(), adjacency, epsilon.upper * (1 + kSlack) + 1e-9).upper;
    EXPECT_LE(delta, kDelta * (1 + 1e-3));
  }
}

TEST_P(EventContract, OneAccountantDoesNotContradictTheOther) {
  for (Adjacency adjacency : answered()) {
    const Interval mine = epsilon_of(event(), adjacency), rdp = epsilon(event(), kDelta, "rdp", adjacency);
    EXPECT_LE(mine.lower, rdp.upper * (1 + 1e-12));
    EXPECT_LE(epsilon(event(), kDelta, "pld", adjacency).lower, mine.upper * (1 + 1e-12));
  }
}

TEST_P(EventContract, TinyAndHugeNoiseReturn) {
  for (Adjacency adjacency : first()) {
    for (double noise : {1e-300, 1e-3, 1e4}) {
      const Interval epsilon = epsilon_of(event(noise), adjacency);
      if (noise < 1e-3) EXPECT_GT(epsilon.upper, 1e6) << noise;
      checked(delta_of(event(noise), adjacency, 1));
    }
    EXPECT_LT(epsilon_of(event(1e4), adjacency, 0.1).upper, 3);
  }
}

TEST_P(EventContract, DomainsAreChecked) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (Adjacency adjacency : answered()) {
    for (double bad : {0.0, 1.0, -1.0, nan, kInfinity}) EXPECT_THROW(epsilon_of(event(), adjacency, bad), InvalidArgument);
    for (double bad : {-1e-300, nan, -kInfinity}) EXPECT_THROW(delta_of(event(), adjacency, bad), InvalidArgument);
  }
}

TEST_P(EventContract, WhatWasWrittenIsChargedTheSame) {
  const Event read = Event::from_json(event().to_json());
  EXPECT_EQ(read, event());
  for (Adjacency adjacency : first()) {
    EXPECT_EQ(epsilon_of(read, adjacency).lower, epsilon_of(event(), adjacency).lower);
    EXPECT_EQ(epsilon_of(read, adjacency).upper, epsilon_of(event(), adjacency).upper);
  }
}

INSTANTIATE_TEST_SUITE_P(, EventContract, testing::ValuesIn(all_settings()),
                         [](const auto& info) { return info.param.kind.name + "_" + info.param.accountant; });

TEST(EventContractKinds, CoverEveryKind) {
  std::vector<bool> seen(static_cast<std::size_t>(EventKind::unsupported) + 1, false);
  for (const Kind& kind : one_of_each()) seen[static_cast<std::size_t>(kind.make(2, 0.1).kind())] = true;
  for (EventKind spared : {EventKind::no_op, EventKind::non_private, EventKind::unsupported}) seen[static_cast<std::size_t>(spared)] = true;
  for (std::size_t i = 0; i < seen.size(); ++i) EXPECT_TRUE(seen[i]) << i;
}

}  // namespace
}  // namespace hushgrad
