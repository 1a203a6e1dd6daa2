#include "accounting/accountants/loss_pair.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include <gtest/gtest.h>

#include "accounting/accountants/accountant.h"
#include "accounting/accountants/pairs.h"
#include "accounting/accountants/pld.h"

namespace hushgrad {
namespace {

// The mixture is the same step as the sampled Gaussian, but goes through the grid of pairs. A pair seen from the wrong side
// is right alone (the worse direction counts), not beside another step.
TEST(LossPair, LooksInTheSameDirectionAsTheStepsBesideIt) {
  const Event sampled = Event::poisson_sampled(0.02, Event::gaussian(0.8));
  const Event mixture = Event::mixture_of_gaussians(0.8, {0, 1}, {0.98, 0.02});
  const Interval same = epsilon(Event::self_composed(sampled, 20), 1e-6);
  const Interval mixed = epsilon(Event::composed({Event::self_composed(sampled, 10), Event::self_composed(mixture, 10)}), 1e-6);
  EXPECT_GE(mixed.upper, same.lower);
  EXPECT_LE(mixed.lower, same.upper);
  EXPECT_NEAR(mixed.upper, same.upper, 2e-3 * same.upper);
}

// delta = 1 - exp((epsilon - 1/b) / 2) for one number with Laplace noise.
TEST(LossPair, OneLaplaceReleaseIsTheClosedForm) {
  for (double b : {0.5, 1.0, 4.0}) {
    for (double share : {0.1, 0.5, 0.9}) {
      const double truth = -std::expm1((share - 1) / b / 2);
      const Interval found = delta(Event::laplace(b), share / b);
      EXPECT_GE(found.upper, truth * (1 - 1e-12)) << b << ' ' << share;
      EXPECT_LE(found.lower, truth * (1 + 1e-12)) << b << ' ' << share;
      EXPECT_GT(found.lower, 0.95 * truth) << b << ' ' << share;
    }
  }
}

// All losses of Laplace noise at its ends lie on grid points, where nothing is given away.
TEST(LossPair, LaplaceIntervalsCloseAtTheJumps) {
  for (double b : {0.5, 1.0, 4.0, 20.0}) {
    for (double at : {1e-3, 1e-6, 1e-10}) {
      const Interval one = epsilon(Event::laplace(b), at), ten = epsilon(Event::self_composed(Event::laplace(b), 10), at);
      const double truth = 1 / b + 2 * std::log1p(-at);
      EXPECT_LE(one.lower, truth * (1 + 1e-12)) << b << ' ' << at;
      EXPECT_GE(one.upper, truth * (1 - 1e-12)) << b << ' ' << at;
      EXPECT_LT(one.upper - one.lower, 1e-5 * truth) << b << ' ' << at;
      EXPECT_LT(ten.upper - ten.lower, 1e-4 * ten.upper) << b << ' ' << at;
    }
  }
}

// Two bins: exact values of golden/accounting.json, derived_balls_in_bins_*.
TEST(LossPair, AllocationToTwoBinsIsNearlyExact) {
  const struct {
    double s, epsilon, delta;
  } cases[] = {{0.5, 1, 0.40457750038}, {1, 0.25, 0.21684514555}, {1, 1, 0.059206501086}, {1, 2, 0.0047457776332}, {2, 0.5, 0.018326594761}};
  for (const auto& one : cases) {
    const Interval found = delta(Event::balls_in_bins(2, Event::gaussian(one.s)), one.epsilon);
    EXPECT_GE(found.upper, one.delta * (1 - 1e-10)) << one.s << ' ' << one.epsilon;
    EXPECT_LE(found.upper, one.delta * 1.01) << one.s << ' ' << one.epsilon;
    EXPECT_LE(found.lower, one.delta) << one.s << ' ' << one.epsilon;
  }
}

TEST(LossPair, WideDiscreteNoiseIsNearlyGaussian) {
  const Interval discrete = epsilon(Event::discrete_gaussian(3e4, 3), 1e-9), gaussian = epsilon(Event::gaussian(1e4), 1e-9);
  EXPECT_GE(discrete.upper, gaussian.lower * (1 - 1e-6));
  EXPECT_LE(discrete.lower, gaussian.upper * (1 + 1e-6));
  EXPECT_LE(delta(Event::discrete_gaussian(3e4, 3), 1).upper, 1e-20);
}

// Outcomes above the reach of 8 deviations are counted as infinite losses.
TEST(LossPair, WhatIsAboveTheReachIsCharged) {
  const GridLoss grid = pair_grid(*gaussian_mixture_pair(1, {0, 1}, {0.5, 0.5}), Direction::remove, Bound::upper, {0.1, 0, 8, 0});
  EXPECT_GE(grid.infinite, 0.5 * std::erfc(8 / std::sqrt(2.0)) / 2);
}

// The definition, integer by integer.
long double discrete_delta(long double s, long double shift, long double epsilon) {
  const long double reach = std::ceil(25 * s);
  long double norm = 0, delta = 0;
  for (long double x = -reach; x <= reach; ++x) norm += std::exp(-x * x / (2 * s * s));
  for (long double x = std::floor(shift / 2 + epsilon * s * s / shift); x <= shift + reach; ++x) {
    const long double p = std::exp(-(x - shift) * (x - shift) / (2 * s * s)), loss = (2 * x - shift) * shift / (2 * s * s);
    if (loss > epsilon) delta += p * -std::expm1(epsilon - loss);
  }
  return delta / norm;
}

// Both ways to the sum of one release, on both sides of where one takes over, in the bulk and far out.
TEST(LossPair, OneDiscreteReleaseIsItsSum) {
  for (double s : {0.6, 3.0, 80.0, 399.0, 401.0, 3000.0, 1e5}) {
    for (std::int64_t shift : {std::int64_t{1}, std::int64_t{3}, static_cast<std::int64_t>(std::max(2.0, 2 * s))}) {
      const double mu = static_cast<double>(shift) / s;
      if (mu > 8) continue;
      for (double deviations : {-0.4, 0.5, 4.0, 15.0}) {
        const double epsilon_at = mu * (deviations + mu / 2);
        if (epsilon_at < 0) continue;
        const auto truth = static_cast<double>(discrete_delta(s, static_cast<long double>(shift), epsilon_at));
        const Event event = Event::discrete_gaussian(s, shift);
        const Interval found = delta(event, epsilon_at);
        EXPECT_LE(found.lower, truth * (1 + 1e-13)) << s << ' ' << shift << ' ' << deviations;
        EXPECT_GE(found.upper, truth * (1 - 1e-13)) << s << ' ' << shift << ' ' << deviations;
        if (s < 10 && deviations > 10) continue;  // whether an integer is above epsilon is decided in the last digit
        EXPECT_LE(found.upper - found.lower, 1e-3 * truth) << s << ' ' << shift << ' ' << deviations;
        if (truth < 1e-250 || s > 1e4) continue;
        const Interval inverse = epsilon(event, truth);
        EXPECT_LE(inverse.lower, epsilon_at * (1 + 1e-9)) << s << ' ' << shift << ' ' << deviations;
        EXPECT_GE(inverse.upper, epsilon_at * (1 - 1e-9)) << s << ' ' << shift << ' ' << deviations;
        EXPECT_LE(inverse.upper - inverse.lower, 1e-3 * epsilon_at) << s << ' ' << shift << ' ' << deviations;
      }
    }
  }
}

// Below what a grid of ratios leaves out, random allocation counts as the release it is without amplification. Given the ratio of
// one bin, that of the others is 1 in the mean, so by Jensen delta is at least that of one bin at b e^epsilon - b + 1, over b.
TEST(LossPair, RandomAllocationAnswersAtAnyDelta) {
  for (std::int64_t bins : {2, 100}) {
    for (double s : {0.4}) {
      for (std::int64_t passes : {1, 3}) {
        const Event event = Event::self_composed(Event::balls_in_bins(bins, Event::gaussian(s)), passes);
        const Event plain = Event::self_composed(Event::gaussian(s), passes);
        for (double at : {1e-100, 5e-324}) {
          for (const char* name : {"pld", "rdp"}) {
            const Interval found = epsilon(event, at, name);
            EXPECT_EQ(found.lower, 0);
            EXPECT_LE(found.upper, epsilon(plain, at, name).upper * (1 + 1e-9)) << name << ' ' << bins << ' ' << s << ' ' << at;
            const double b = static_cast<double>(bins), inner = std::log(b) + std::log(std::expm1(found.upper) + 1 / b);
            EXPECT_LE(gaussian_log_delta(1 / s, inner).value - std::log(b), std::log(at) + 1e-9);
          }
        }
        for (double at : {50.0, 500.0}) {
          for (const char* name : {"pld", "rdp"}) {
            EXPECT_LE(delta(event, at, name).upper, std::max(delta(plain, at, name).upper, 1e-307) * (1 + 1e-9));
          }
        }
      }
    }
  }
}

double normal_below(double x) { return std::erfc(-x / std::sqrt(2.0)) / 2; }

// The mean of what `bins` likelihood ratios e^(mu x - mu^2 / 2) with x ~ N(0, 1) exceed c by together: all but one are integrated
// with trapezoids, that one is the closed form.
double excess_of_ratios(int bins, double mu, double c) {
  if (c <= 0) return bins - c;
  if (bins == 1) return normal_below(mu / 2 - std::log(c) / mu) - c * normal_below(-mu / 2 - std::log(c) / mu);
  double sum = 0;
  for (int i = -90; i <= 90; ++i) {
    const double x = 0.1 * i;
    sum += std::exp(-x * x / 2) * excess_of_ratios(bins - 1, mu, c - std::exp(mu * x - mu * mu / 2));
  }
  return sum * 0.1 / std::sqrt(2 * 3.14159265358979324);
}

// The ratio of random allocation is the mean of one a bin.
TEST(LossPair, RandomAllocationIsIntegrated) {
  for (int bins : {2, 3}) {
    for (double s : {0.7, 2.0}) {
      Spending spending;
      spending.pairs = {{random_allocation_pair(bins, s), 1}};
      for (double epsilon_at : {0.0, 0.4}) {
        const double up = bins * std::exp(epsilon_at), down = bins * std::exp(-epsilon_at);
        const double remove = excess_of_ratios(bins, 1 / s, up) / bins;
        const double add = std::exp(epsilon_at) * (down - bins + excess_of_ratios(bins, 1 / s, down)) / bins;
        const double found_remove = pld_direction_delta(spending, epsilon_at, Direction::remove).upper;
        const double found_add = pld_direction_delta(spending, epsilon_at, Direction::add).upper;
        EXPECT_GE(found_remove, remove - 1e-6) << bins << ' ' << s << ' ' << epsilon_at;
        EXPECT_LE(found_remove, remove * 1.02 + 1e-6) << bins << ' ' << s << ' ' << epsilon_at;
        EXPECT_GE(found_add, add - 1e-6) << bins << ' ' << s << ' ' << epsilon_at;
        EXPECT_LE(found_add, add * 1.02 + 1e-6) << bins << ' ' << s << ' ' << epsilon_at;
        const Interval both = delta(Event::balls_in_bins(bins, Event::gaussian(s)), epsilon_at);
        EXPECT_GE(both.upper, std::max(remove, add) - 1e-6) << bins << ' ' << s << ' ' << epsilon_at;
        EXPECT_LE(both.lower, std::max(remove, add) + 1e-6) << bins << ' ' << s << ' ' << epsilon_at;
      }
    }
  }
}

// Losses known less exactly stay so whatever they are mixed with.
TEST(LossPair, AMixtureRoundsAsItsWorsePart) {
  const LossPairPointer rough = random_allocation_pair(64, 0.8), exact = laplace_pair(1, 1);
  const LossPairPointer first = mixed_pair(0.3, rough, exact), second = mixed_pair(0.3, exact, rough), nested = mixed_pair(0.1, exact, second);
  ASSERT_GT(rough->loss_rounding(), exact->loss_rounding());
  const GridOptions options{0.01, 1, 8, 0};
  for (const LossPairPointer& mixed : {first, second, nested}) {
    EXPECT_EQ(mixed->loss_rounding(), rough->loss_rounding());
    for (Direction direction : {Direction::remove, Direction::add}) {
      EXPECT_GT(pair_grid(*mixed, direction, Bound::upper, options).loss_error, rough->loss_rounding());
    }
  }
  EXPECT_EQ(mixed_pair(0.3, exact, exact)->loss_rounding(), 0);
}

TEST(LossPair, ExtremesReturn) {
  for (const Event& event : {Event::laplace(2), Event::discrete_gaussian(6, 3), Event::mixture_of_gaussians(2, {0, 1}, {0.9, 0.1})}) {
    for (std::int64_t count : {std::int64_t{1}, std::numeric_limits<std::int64_t>::max()}) {
      for (double small : {5e-324, 1e-300}) {
        const Interval found = epsilon(Event::self_composed(event, count), small);
        EXPECT_LE(0, found.lower);
        EXPECT_LE(found.lower, found.upper);  // false for NaN
      }
      const Interval found = delta(Event::self_composed(event, count), 1e300);
      EXPECT_LE(0, found.lower);
      EXPECT_LE(found.lower, found.upper);
    }
  }
}

}  // namespace
}  // namespace hushgrad
