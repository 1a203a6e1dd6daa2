#include "accounting/accountants/accountant.h"

#include <cmath>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "accounting/accountants/spending.h"
#include "dpcore/error.h"

namespace hushgrad {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

Event steps(double q, double s, std::int64_t count) {
  return Event::self_composed(Event::poisson_sampled(q, Event::gaussian(s)), count);
}

void expect_sane(Interval interval) {
  EXPECT_FALSE(std::isnan(interval.lower));
  EXPECT_FALSE(std::isnan(interval.upper));
  EXPECT_GE(interval.lower, 0);
  EXPECT_LE(interval.lower, interval.upper);
}

// Every accountant, by name: a new one is tested by registering it.
class EveryAccountant : public testing::TestWithParam<std::string> {
 protected:
  Interval epsilon_of(const Event& event, double delta) const { return epsilon(event, delta, GetParam()); }
  Interval delta_of(const Event& event, double epsilon) const { return delta(event, epsilon, GetParam()); }
};

TEST_P(EveryAccountant, NothingReleasedSpendsNothing) {
  for (const Event& event :
       {Event::no_op(), Event::composed({}), steps(0.01, 1, 0), steps(0, 1, 100), steps(0, 0, 100),
        Event::self_composed(Event::non_private(), 0), Event::poisson_sampled(0.5, Event::no_op()),
        Event::self_composed(Event::unsupported("never ran"), 0)}) {
    EXPECT_EQ(epsilon_of(event, 1e-5).upper, 0) << event.to_json();
    EXPECT_EQ(delta_of(event, 0).upper, 0) << event.to_json();
  }
}

TEST_P(EveryAccountant, WithoutNoiseNothingIsClaimed) {
  for (const Event& event : {Event::non_private(), Event::gaussian(0), steps(0.01, 0, 10), Event::gaussian(1e-200),
                             Event::composed({steps(0.01, 1, 10), Event::non_private()})}) {
    EXPECT_EQ(epsilon_of(event, 1e-5).upper, kInfinity) << event.to_json();
    EXPECT_EQ(epsilon_of(event, 1e-5).lower, kInfinity) << event.to_json();
    EXPECT_EQ(delta_of(event, 3).upper, 1) << event.to_json();
  }
  // One rare unprotected release: the claim above is a bound, not a fact, so the lower end says less.
  const Event rare = Event::poisson_sampled(1e-9, Event::non_private());
  EXPECT_EQ(epsilon_of(rare, 1e-5).upper, kInfinity);
  EXPECT_EQ(epsilon_of(rare, 1e-5).lower, 0);
  EXPECT_NEAR(delta_of(rare, 1).lower, 1e-9, 1e-15);
}

TEST_P(EveryAccountant, ExtremesReturn) {
  for (double s : {1e-100, 1e-6, 1e-3, 0.01, 0.03, 0.3, 1e3, 1e9, 1e200}) {
    for (double q : {1e-300, 1e-9, 0.01, 0.999999, 1.0}) {
      for (std::int64_t count : {std::int64_t{1}, std::int64_t{2}, std::int64_t{1000}, std::numeric_limits<std::int64_t>::max()}) {
        const Interval epsilon = epsilon_of(steps(q, s, count), 1e-5);
        expect_sane(epsilon);
        if (count == 1000) expect_sane(delta_of(steps(q, s, count), 1));
      }
    }
  }
  for (double delta : {5e-324, 1e-300, 1e-18, 0.5, std::nextafter(1.0, 0.0)}) expect_sane(epsilon_of(steps(0.1, 1, 50), delta));
  for (double epsilon : {0.0, 5e-324, 1e-9, 30.0, 1e5, 1e300, kInfinity}) expect_sane(delta_of(steps(0.1, 1, 50), epsilon));
}

TEST_P(EveryAccountant, MoreSpendingIsNeverLess) {
  const double base = epsilon_of(steps(0.02, 1.2, 200), 1e-6).upper;
  EXPECT_LT(base, epsilon_of(steps(0.02, 1.2, 300), 1e-6).upper);
  EXPECT_LT(base, epsilon_of(steps(0.03, 1.2, 200), 1e-6).upper);
  EXPECT_LT(base, epsilon_of(steps(0.02, 1.1, 200), 1e-6).upper);
  EXPECT_LT(base, epsilon_of(steps(0.02, 1.2, 200), 1e-7).upper);
  EXPECT_LT(base, epsilon_of(Event::composed({steps(0.02, 1.2, 200), Event::gaussian(5)}), 1e-6).upper);
}

TEST_P(EveryAccountant, UnsupportedIsNamed) {
  try {
    epsilon_of(Event::composed({steps(0.1, 1, 1), Event::unsupported("adaptive clipping")}), 1e-5);
    FAIL();
  } catch (const Unsupported& error) {
    EXPECT_NE(std::string(error.what()).find("adaptive clipping"), std::string::npos);
  }
  EXPECT_THROW(epsilon_of(Event::poisson_sampled(0.1, steps(0.1, 1, 2)), 1e-5), Unsupported);
  EXPECT_THROW(epsilon_of(Event::poisson_sampled(0.1, Event::composed({steps(0.1, 1, 1), Event::gaussian(1)})), 1e-5),
               Unsupported);
}

TEST_P(EveryAccountant, RefusesWhatIsOutsideTheDomain) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (double bad : {0.0, 1.0, -0.1, 2.0, nan, kInfinity}) EXPECT_THROW(epsilon_of(Event::gaussian(1), bad), InvalidArgument);
  for (double bad : {-0.1, nan, -kInfinity}) EXPECT_THROW(delta_of(Event::gaussian(1), bad), InvalidArgument);
}

INSTANTIATE_TEST_SUITE_P(, EveryAccountant, testing::Values("pld", "rdp"), [](const auto& info) { return info.param; });

TEST(Accountant, Registry) {
  EXPECT_EQ(accountant_names(), (std::vector<std::string_view>{"pld", "rdp"}));
  EXPECT_THROW(accountant("gdp"), InvalidArgument);
}

TEST(Spending, GaussiansOnOneBatchAreOne) {
  const Event pair = Event::composed({Event::gaussian(2), Event::self_composed(Event::gaussian(2), 3)});
  const Interval together = epsilon(Event::self_composed(Event::poisson_sampled(0.1, pair), 20), 1e-5);
  const Interval one = epsilon(steps(0.1, 1, 20), 1e-5);
  EXPECT_NEAR(together.upper, one.upper, 1e-6);
  EXPECT_GE(together.upper, one.lower);
}

TEST(Spending, ReplacingAndGroupsMoveFurther) {
  EXPECT_NEAR(flatten(Event::gaussian(2), Adjacency::replace_one).mu_squared, 1, 1e-12);
  EXPECT_NEAR(flatten(Event::group(3, Event::gaussian(3))).mu_squared, 1, 1e-12);
}

TEST(Spending, NestedSamplingMultiplies) {
  const Event nested = Event::poisson_sampled(0.5, Event::poisson_sampled(0.25, Event::gaussian(1)));
  const Spending spending = flatten(nested);
  ASSERT_EQ(spending.sampled.size(), 1u);
  EXPECT_EQ(spending.sampled[0].sampling_probability, 0.125);
}

TEST(Spending, EqualStepsAreGathered) {
  const Spending spending = flatten(
      Event::composed({steps(0.1, 1, 5), Event::composed({steps(0.2, 1, 2), steps(0.1, 1, 3)}), Event::no_op()}));
  ASSERT_EQ(spending.sampled.size(), 2u);
  EXPECT_EQ(spending.sampled[0].count, 8);
  EXPECT_EQ(spending.sampled[1].count, 2);
}

TEST(Spending, SamplingEverythingIsNotSampling) {
  EXPECT_TRUE(flatten(steps(1, 2, 4)).only_gaussian());
  EXPECT_NEAR(flatten(steps(1, 2, 4)).mu_squared, 1, 1e-15);
  EXPECT_GE(flatten(steps(1, 3, 9)).mu_squared, 1);
}

// Truths by mpmath: P(S) - e^epsilon Q(S) of the set above the threshold, both directions.
TEST(PldAccountant, SmallCoefficientsKeepTheirDigits) {
  const auto group = [](std::int64_t size, double q, double s) { return Event::group(size, Event::poisson_sampled(q, Event::gaussian(s))); };
  const struct {
    Event event;
    double epsilon, delta;
  } cases[] = {{group(5, 0.9797549273107325, 0.3567222359302121), 24.34533920754371, 0.998742387807},
               {group(2, 0.5694505696558911, 4.281503636721058), 5.7684459120370155, 2.032827989e-49},
               {group(2, 0.014183603295766517, 8.189710498821434), 1.1257986715027015, 3.0387261992e-238}};
  for (const auto& one : cases) {
    const Interval found = delta(one.event, one.epsilon);
    EXPECT_LE(found.lower, one.delta * (1 + 1e-9));
    EXPECT_GE(found.upper, one.delta * (1 - 1e-9));
  }
}

TEST(PldAccountant, WhatSpendsLessThanItsBoundHasNoLowerEnd) {
  EXPECT_LE(epsilon(Event::laplace(1e9), 1e-30).lower, 1e-9);
  EXPECT_LE(delta(Event::gaussian(1e200), 0).lower, 1e-200);
  const Event nested = Event::poisson_sampled(0.5, Event::poisson_sampled(0.5, Event::gaussian(1e12)));
  EXPECT_LE(delta(nested, 0).lower, 0.25 * 0.4 * 1e-12);
  // A run is exposed once in a hundred; the best of some runs is not exposed for certain.
  const Event rarely = Event::poisson_sampled(0.01, Event::non_private());
  EXPECT_LT(epsilon(Event::repeat_and_select(rarely, 2, 1), 0.5).lower, kInfinity);
}

TEST(PldAccountant, ADeltaAboveTheSamplingRateCostsNothing) {
  const Interval found = epsilon(Event::poisson_sampled(3.126751979748148e-06, Event::gaussian(0.812496901976956)), 9.497869689745429e-06);
  EXPECT_EQ(found.lower, 0);
  EXPECT_EQ(found.upper, 0);
}

TEST(PldAccountant, WideNoiseIsNotTakenForNone) {
  EXPECT_GE(delta(Event::gaussian(1e155), 0).upper, 3.9894228e-156);
}

TEST(Spending, CountsAboveAllWholeDoublesRoundUp) {
  const auto step = Event::poisson_sampled(0.1, Event::gaussian(1));
  EXPECT_GE(flatten(Event::self_composed(step, 9007199254740993)).sampled[0].count, 9007199254740994.0);
}

// Where noise was reduced to what a double or a grid can hold, the lower end must not be that of the reduced noise.
TEST(Spending, ReducedNoiseHasNoLowerEnd) {
  EXPECT_EQ(delta(Event::laplace(2e6), 7e-7).lower, 0);  // that of 1e6 is above
  EXPECT_GE(delta(Event::laplace(2e6), 0).upper, 2.5e-7);
  EXPECT_LE(delta(Event::gaussian(1.5e154), 0).lower, 2.66e-155);
  EXPECT_GE(delta(Event::gaussian(1.5e154), 0).upper, 2.65e-155);  // 1 / (1.5e154 sqrt(2 pi))
  EXPECT_GE(delta(steps(1, 1e300, 1000), 0).upper, 1e-299);
  const Event twice = Event::poisson_sampled(0.5, Event::poisson_sampled(0.5, Event::gaussian(1e10)));
  EXPECT_LE(delta(twice, 0).lower, 0.25 * 1e-10 * 0.3989423);
  EXPECT_GE(delta(twice, 0).upper, 0.25 * 1e-10 * 0.3989422);
}

// Too little noise for a grid is charged as none, which is a bound and not a fact.
TEST(Spending, WhatIsChargedAsExposedNeedNotBe) {
  const Event little = Event::mixture_of_gaussians(0.019, {0, 1}, {0.5, 0.5});
  EXPECT_EQ(epsilon(little, 0.1).lower, 0);
  const Event whole = Event::mixture_of_gaussians(0.019, {1}, {1});
  for (const Event& event : {Event::poisson_sampled(0.5, whole), Event::repeat_and_select(little, 2, 1), Event::repeat_and_select(whole, 2, 1),
                             Event::repeat_and_select(Event::poisson_sampled(1e-3, Event::non_private()), 2, 1)}) {
    EXPECT_LT(epsilon(event, 0.1).lower, kInfinity) << event.to_json();
    EXPECT_EQ(epsilon(event, 0.1).upper, kInfinity) << event.to_json();
    EXPECT_LT(epsilon(event, 0.1, "rdp").lower, kInfinity) << event.to_json();
    EXPECT_LT(delta(event, 1).lower, 0.51) << event.to_json();
  }
}

TEST(PldAccountant, IntervalsAreNarrowAtTypicalSettings) {
  struct Setting {
    double q, s;
    std::int64_t count;
    double delta;
  };
  for (const Setting& s : {Setting{0.01, 1, 10000, 1e-5}, Setting{256 / 60000.0, 1.1, 14063, 1e-5},
                           Setting{4096 / 50000.0, 3, 2500, 1e-5}, Setting{0.001, 0.6, 50000, 1e-5},
                           Setting{0.01, 1, 10000, 1e-12}, Setting{0.01, 1, 1000000, 1e-5}}) {
    const Interval bounds = epsilon(steps(s.q, s.s, s.count), s.delta);
    EXPECT_LE(bounds.upper - bounds.lower, 1e-3 * bounds.upper) << s.q;
    EXPECT_LE(bounds.upper, epsilon(steps(s.q, s.s, s.count), s.delta, "rdp").upper);
  }
}

TEST(PldAccountant, MixesOfStepsLieBetweenTheirParts) {
  const Interval weak = epsilon(steps(0.01, 1.5, 2000), 1e-5), strong = epsilon(steps(0.01, 1, 2000), 1e-5);
  const Interval mixed = epsilon(Event::composed({steps(0.01, 1.5, 1000), steps(0.01, 1, 1000)}), 1e-5);
  EXPECT_GT(mixed.upper, weak.lower);
  EXPECT_LT(mixed.lower, strong.upper);
  EXPECT_LE(mixed.upper - mixed.lower, 1e-3 * mixed.upper);
}

TEST(PldAccountant, GaussianPartsMayBeWrittenAsStepsThatSampleEverything) {
  // Not collapsed to the closed form: 1 - 1e-9 is not 1.
  const Interval exact = epsilon(Event::self_composed(Event::gaussian(10), 100), 1e-5);
  const Interval nearly = epsilon(steps(1 - 1e-9, 10, 100), 1e-5);
  EXPECT_GE(nearly.upper, exact.lower * (1 - 1e-6));
  EXPECT_LE(nearly.lower, exact.upper);
  EXPECT_LE(nearly.upper - nearly.lower, 1e-3 * nearly.upper);
}

TEST(PldAccountant, SameAnswerFromEveryThread) {
  const Event event = Event::composed({steps(0.01, 1, 1000), steps(0.02, 1.5, 100)});
  const Interval expected = epsilon(event, 1e-5);
  std::vector<Interval> found(4);
  {
    std::vector<std::jthread> threads;
    for (Interval& interval : found) threads.emplace_back([&] { interval = epsilon(event, 1e-5); });
  }
  for (const Interval& interval : found) {
    EXPECT_EQ(interval.lower, expected.lower);
    EXPECT_EQ(interval.upper, expected.upper);
  }
}

}  // namespace
}  // namespace hushgrad
