// The replaced step against the closed form of the true one, on grids so coarse that rounding cannot hide a mistake.
#include "accounting/accountants/loss_grid.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace hushgrad {
namespace {

struct Case {
  double q, s, spacing, tilt;
  double log_fine = -std::numeric_limits<double>::infinity();
};

GridOptions options_of(const Case& c) { return {c.spacing, c.tilt, 10, 0, c.log_fine, 0.3 / (1 + c.tilt)}; }

std::string name(const testing::TestParamInfo<Case>& info) { return "case" + std::to_string(info.index); }

// The definition: sum over losses l > epsilon of p (1 - exp(epsilon - l)).
double delta_of(const GridLoss& grid, const Case& c, double epsilon, Bound bound) {
  // Of what is beyond the grid, all counts where its losses are known to be above epsilon; else it may.
  const Beyond& beyond = grid.beyond;
  double delta = grid.infinite + (epsilon < beyond.lowest_beyond ? beyond.excess - std::expm1(epsilon) * beyond.without
                                  : bound == Bound::upper        ? beyond.excess + beyond.without
                                                                 : 0);
  for (std::size_t i = 0; i < grid.masses.size(); ++i) {
    const double loss = grid.loss(i, c.spacing);
    const double p = grid.masses[i] * std::exp(grid.log_scale - c.tilt * loss);
    if (loss > epsilon) delta += p * -std::expm1(epsilon - loss);
  }
  return delta;
}

class GridLossTest : public testing::TestWithParam<Case> {
 protected:
  GridLoss grid(Direction direction, Bound bound) const {
    const Case& c = GetParam();
    return grid_loss(c.q, c.s, direction, bound, options_of(c));
  }

  double exact(double epsilon, Direction direction) const {
    return std::exp(sampled_gaussian_log_delta(GetParam().q, GetParam().s, epsilon, direction).value);
  }

  // Also between the grid points, and also where epsilon is negative: compositions use the whole curve.
  template <typename Check>
  void for_every_epsilon(Check&& check) const {
    const double scale = 1 / (GetParam().s * GetParam().s) + 3 / GetParam().s;
    for (double f = -1; f <= 1.5; f += 0.0171) check(f * scale);
    for (double f = -1; f <= 1.5; f += 0.0171) check(f * 2 * GetParam().q);
  }
};

TEST_P(GridLossTest, UpperNeverBelowTheTruthAndLowerNeverAbove) {
  for (Direction direction : {Direction::remove, Direction::add}) {
    const GridLoss upper = grid(direction, Bound::upper), lower = grid(direction, Bound::lower);
    for (double mass : lower.masses) ASSERT_GE(mass, 0);
    for (double mass : upper.masses) ASSERT_GE(mass, 0);
    for_every_epsilon([&](double epsilon) {
      const double truth = exact(epsilon, direction);
      EXPECT_GE(delta_of(upper, GetParam(), epsilon, Bound::upper), truth * (1 - 1e-11) - 1e-300) << "epsilon " << epsilon;
      // The lower curve is cut off beyond ten deviations; there it is 0.
      EXPECT_LE(delta_of(lower, GetParam(), epsilon, Bound::lower), truth * (1 + 1e-11) + 1e-300) << "epsilon " << epsilon;
    });
  }
}

// The error is of second order in the spacing: a quarter of it leaves about a sixteenth of the area between the ends.
class FineGridLossTest : public GridLossTest {};

TEST_P(FineGridLossTest, TheEndsCloseQuadratically) {
  Case fine = GetParam();
  fine.spacing /= 4;
  for (Direction direction : {Direction::remove, Direction::add}) {
    const auto area = [&](const Case& c) {
      const GridOptions options = options_of(c);
      const GridLoss upper = grid_loss(c.q, c.s, direction, Bound::upper, options);
      const GridLoss lower = grid_loss(c.q, c.s, direction, Bound::lower, options);
      // Spread over a whole number of coarse cells, so that it does not matter where the grids lie.
      double sum = 0;
      for (int i = -400; i < 400; ++i) {
        const double epsilon = i * GetParam().spacing / 40;
        sum += delta_of(upper, c, epsilon, Bound::upper) - delta_of(lower, c, epsilon, Bound::lower);
      }
      return sum;
    };
    EXPECT_LE(area(fine), area(GetParam()) / 5);
  }
}

TEST_P(GridLossTest, SplittingKeepsBothProbabilities) {
  const GridLoss upper = grid(Direction::remove, Bound::upper);
  double with = upper.beyond.without + upper.beyond.excess, without = upper.beyond.without;
  for (std::size_t i = 0; i < upper.masses.size(); ++i) {
    const double loss = upper.loss(i, GetParam().spacing);
    const double p = upper.masses[i] * std::exp(upper.log_scale - GetParam().tilt * loss);
    with += p;
    without += p * std::exp(-loss);
  }
  EXPECT_NEAR(with, 1, 1e-12);
  EXPECT_NEAR(without, 1, 1e-12);
}

// All of the bulk in one coarse cell, and rare losses far above it. Downward the bulk must not take them along.
TEST(LowerGridLoss, KeepsRareLossesBesideTheBulk) {
  for (const Case& c : {Case{6.23e-5, 0.505, 0.016, 5, 80}, Case{1e-6, 0.491, 3e-3, 4, 80}, Case{1.12e-6, 0.3, 0.028, 2.6, 80}, Case{1e-6, 0.4, 0.01, 9, 80}}) {
    const GridLoss lower = grid_loss(c.q, c.s, Direction::remove, Bound::lower, options_of(c));
    for (double epsilon : {0.5, 1.0, 3.0}) {
      const double truth = std::exp(sampled_gaussian_log_delta(c.q, c.s, epsilon, Direction::remove).value);
      EXPECT_GE(delta_of(lower, c, epsilon, Bound::lower), 0.99 * truth) << c.q << " " << epsilon;
    }
    // And the bulk stays where it is.
    double mass = 0, mean = 0;
    for (std::size_t i = 0; i < lower.masses.size(); ++i) {
      const double loss = lower.loss(i, c.spacing), p = lower.masses[i] * std::exp(lower.log_scale - c.tilt * loss);
      if (loss > 0.3) continue;
      mass += p;
      mean += p * loss;
    }
    EXPECT_GT(mass, 0.999);
    EXPECT_GT(mean, -0.01 * c.spacing);
  }
}

// A reach so short that what lies outside shows: below it goes to the grid, above it is beyond.
TEST(GridLossReach, NothingOutsideIsLost) {
  const GridOptions options{0.01, 1, 1.5, 0};
  const GridLoss upper = grid_loss(0.3, 1, Direction::remove, Bound::upper, options);
  double with = upper.beyond.without + upper.beyond.excess;
  EXPECT_GT(with, 0.01);
  for (std::size_t i = 0; i < upper.masses.size(); ++i) {
    with += upper.masses[i] * std::exp(upper.log_scale - options.tilt * upper.loss(i, options.spacing));
  }
  EXPECT_NEAR(with, 1, 1e-12);
}

// Mild and extreme sampling, narrow and wide noise, grids from fine to wider than the whole distribution, tilts.
INSTANTIATE_TEST_SUITE_P(, GridLossTest,
                         testing::Values(Case{0.01, 1, 0.01, 0}, Case{0.01, 1, 0.1, 2}, Case{0.01, 1, 0.001, 8},
                                         Case{0.5, 1, 0.1, 1}, Case{0.5, 0.3, 0.3, 0.2}, Case{1, 1, 0.1, 1},
                                         Case{1, 0.4, 0.5, 0.5}, Case{1, 20, 0.01, 30}, Case{0.999, 0.8, 0.05, 3},
                                         Case{0.001, 0.6, 2e-3, 3}, Case{0.001, 0.6, 0.02, 3}, Case{0.01, 0.1, 0.07, 0.04},
                                         Case{0.01, 0.05, 0.1, 0.01}, Case{0.2, 4, 0.3, 1}, Case{1e-6, 10, 1e-8, 1e5},
                                         Case{1e-6, 0.5, 1e-3, 5}, Case{0.08, 3, 0.002, 20}, Case{0.3, 1, 0.9, 0}),
                         name);

// Points far apart where the losses are thin.
INSTANTIATE_TEST_SUITE_P(Wide, GridLossTest,
                         testing::Values(Case{0.01, 1, 1e-3, 2, 3}, Case{0.5, 1, 1e-3, 1, 3}, Case{1, 1, 2e-3, 1, 2},
                                         Case{0.001, 0.6, 1e-4, 3, 5}, Case{1e-6, 10, 1e-8, 1e5, 18},
                                         Case{0.08, 3, 1e-4, 20, 4}, Case{0.0084, 9.3, 4e-5, 5, 10},
                                         Case{0.0084, 9.3, 4e-5, 5, 80}, Case{0.3, 0.2, 1e-2, 0.1, 20}),
                         name);

TEST(WideGridLoss, HasFewPointsAndHardlyMoves) {
  const Case narrow{0.01, 1, 2e-4, 2}, wide{0.01, 1, 2e-4, 2, 3};
  for (Direction direction : {Direction::remove, Direction::add}) {
    for (Bound bound : {Bound::upper, Bound::lower}) {
      const GridLoss fine = grid_loss(narrow.q, narrow.s, direction, bound, options_of(narrow));
      const GridLoss few = grid_loss(wide.q, wide.s, direction, bound, options_of(wide));
      if (direction == Direction::remove) EXPECT_LT(20 * few.masses.size(), fine.masses.size());
      for (double epsilon : {-0.005, 0.0, 0.01, 0.1, 1.0}) {
        const double delta = delta_of(fine, narrow, epsilon, Bound::upper);
        EXPECT_NEAR(delta_of(few, wide, epsilon, Bound::upper), delta, 0.02 * delta + 1e-12) << epsilon;
      }
    }
  }
}

// Grids that resolve the losses.
INSTANTIATE_TEST_SUITE_P(, FineGridLossTest,
                         testing::Values(Case{0.01, 1, 0.01, 0}, Case{0.01, 1, 0.1, 2}, Case{0.5, 1, 0.1, 1},
                                         Case{0.5, 0.3, 0.3, 0.2}, Case{1, 1, 0.1, 1}, Case{1, 20, 0.01, 30},
                                         Case{0.999, 0.8, 0.05, 3}, Case{0.001, 0.6, 2e-3, 3}, Case{1e-6, 10, 1e-8, 1e5},
                                         Case{0.08, 3, 0.002, 20}, Case{0.2, 4, 0.02, 5}),
                         name);

}  // namespace
}  // namespace hushgrad
