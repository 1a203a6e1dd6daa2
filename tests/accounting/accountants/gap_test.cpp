#include "accounting/accountants/gap.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "accounting/accountants/accountant.h"

namespace hushgrad {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// The gap of the real release to the ideal one widens the interval on both sides, by at least twice the divergence.
TEST(Gap, IsChargedUpwardAndTakenFromTheLowerEnd) {
  const double divergence = 0.05, order = 1 << 18;
  const Interval ideal = epsilon(Event::gaussian(1), 1e-6);
  const Interval real = epsilon(Event::finite_precision(Event::gaussian(1), order, divergence, 1e-24), 1e-6);
  EXPECT_GE(real.upper, ideal.upper + 2 * divergence);
  EXPECT_LE(real.lower, ideal.lower - 2 * divergence);
  const Interval ideal_delta = delta(Event::gaussian(1), 3);
  const Interval real_delta = delta(Event::finite_precision(Event::gaussian(1), order, divergence, 1e-24), 3);
  EXPECT_GE(real_delta.upper, std::exp(divergence) * delta(Event::gaussian(1), 3 - 2 * divergence).lower);
  EXPECT_LE(real_delta.lower, ideal_delta.lower);
}

double tail(double x) { return std::erfc(x / std::sqrt(2.0)) / 2; }

// The worst and the best real laws that stay within a factor e^lambda of N(1, 1) and N(0, 1), told apart by x > t.
struct Extremes {
  double worst = 0, best = 1;
};

Extremes extremes(double epsilon, double lambda) {
  const double up = std::exp(lambda), down = std::exp(-lambda), growth = std::exp(epsilon);
  Extremes found;
  for (double t = -3; t < 4; t += 0.001) {
    const double p = tail(t - 1), q = tail(t);
    const double more = std::min(up * p, 1 - down * (1 - p)), less = std::max(down * q, 1 - up * (1 - q));
    found.worst = std::max(found.worst, more - growth * less);
    // Here the density of P is lowered above t and that of Q raised, both scaled below t; the tests are all rays.
    const double p_less = std::max(down * p, 1 - up * (1 - p)), q_more = std::min(up * q, 1 - down * (1 - q));
    double delta = 0;
    for (double ray = -3; ray < 4; ray += 0.02) {
      const auto moved = [&](double part, double whole, double to) { return part <= whole ? part / whole * to : to + (part - whole) / (1 - whole) * (1 - to); };
      delta = std::max(delta, moved(tail(ray - 1), p, p_less) - growth * moved(tail(ray), q, q_more));
    }
    found.best = std::min(found.best, delta);
    t += 0.009;
  }
  return found;
}

// Also below twice the ratio, where the ideal release is asked at a negative epsilon.
TEST(Gap, ContainsTheWorstAndTheBestRealReleases) {
  const double lambda = 0.05, order = 1 << 22;
  const Event event = Event::finite_precision(Event::gaussian(1), order, lambda, 0);
  for (double epsilon : {0.0, 0.03, 0.09, 0.1, 0.11, 0.5, 2.0}) {
    const Extremes truth = extremes(epsilon, lambda);
    const Interval found = delta(event, epsilon);
    EXPECT_GE(found.upper, truth.worst) << epsilon;
    EXPECT_LE(found.upper, truth.worst * 1.1) << epsilon;
    EXPECT_LE(found.lower, truth.best) << epsilon;
    EXPECT_GE(found.lower, truth.best * 0.9 - 1e-3) << epsilon;
  }
}

// Real laws that agree with the ideal ones but for a probability f can move f of either law into the best test or out of it: delta
// changes by (1 + e^epsilon) f at most, and by as much for some. Where the other law has nothing, by f.
TEST(Gap, FailuresAreCharged) {
  for (double failure : {1e-3, 1e-6, 1e-9}) {
    const Event ideal = Event::gaussian(1), real = Event::finite_precision(ideal, 1 << 18, 0, failure);
    for (double epsilon_at : {0.0, 0.5, 2.0}) {
      const Interval without = delta(ideal, epsilon_at), with = delta(real, epsilon_at);
      const double moved = (1 + std::exp(epsilon_at)) * failure;
      EXPECT_GE(with.upper, without.lower + moved * (1 - 1e-6)) << failure << ' ' << epsilon_at;
      EXPECT_LE(with.upper, (without.upper + moved) * (1 + 1e-6)) << failure << ' ' << epsilon_at;
      EXPECT_LE(with.lower, without.upper - moved * (1 - 1e-6)) << failure << ' ' << epsilon_at;
      EXPECT_GE(with.lower, (without.lower - moved) * (1 - 1e-6)) << failure << ' ' << epsilon_at;
      EXPECT_GE(epsilon(real, without.lower + moved).upper, epsilon_at * (1 - 1e-9)) << failure;
      EXPECT_LE(epsilon(real, without.lower + moved).lower, epsilon_at) << failure;
    }
    EXPECT_GE(delta(real, kInfinity).upper, failure);
    EXPECT_EQ(epsilon(real, 0.9 * failure).upper, kInfinity);
  }
}

// With a delta that the gap fills up to 1 nothing is left to be known.
TEST(Gap, DeltaOfOneHasNoLowerEnd) {
  Spending spending;
  spending.mu_squared = 1;
  spending.gap_order = 1 << 18;
  spending.gap_divergence = 0.02;
  const auto ideal = [](const Spending&, double at) -> Interval { return at < 1 ? Interval{5, 5} : Interval{0, 0}; };
  EXPECT_EQ(with_gap_epsilon(spending, 0.99, ideal).lower, 0);
  EXPECT_GE(with_gap_epsilon(spending, 0.99, ideal).upper, 5);
  EXPECT_GT(with_gap_epsilon(spending, 0.5, ideal).lower, 4);
}

TEST(Gap, AnswersAtEveryEpsilon) {
  for (double divergence : {0.0, 1e-9, 0.1, 1e3}) {
    const Event event = Event::finite_precision(Event::gaussian(1), 1 << 18, divergence, 1e-320);
    double before = 1;
    for (double epsilon : {0.0, 1e-12, 1e-3, 0.2, 1.0, 100.0, 599.0, 601.0, 1e4, 1e300, kInfinity}) {
      const Interval found = delta(event, epsilon);
      EXPECT_LE(0, found.lower);
      EXPECT_LE(found.lower, found.upper);
      EXPECT_LE(found.upper, before * (1 + 1e-9)) << divergence << ' ' << epsilon;
      if (epsilon <= 1) before = found.upper;
    }
  }
}

}  // namespace
}  // namespace hushgrad
