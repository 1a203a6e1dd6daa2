// The transform against plain convolution of the same grids, for few steps.
#include "accounting/accountants/composition.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "accounting/accountants/pld.h"

namespace hushgrad {
namespace {

struct Losses {
  double offset = 0;
  std::int64_t first = 0;
  std::vector<long double> masses{1};  // probabilities
  long double infinite = 0;
  long double any_q = 0, any_p = 0;  // probabilities that some step is beyond its grid
  double lowest_beyond = std::numeric_limits<double>::infinity(), lowest = 0;  // losses
};

Losses convolve(const Losses& a, const GridLoss& b) {
  const auto width = static_cast<std::size_t>(b.places.back() - b.places.front());
  Losses sum{a.offset + b.offset, a.first + b.places.front(), std::vector<long double>(a.masses.size() + width, 0), 0};
  sum.lowest_beyond = std::min(a.lowest_beyond, b.beyond.lowest_beyond);
  sum.lowest = a.lowest + b.beyond.lowest;
  const long double q = b.beyond.without, p = q + b.beyond.excess;
  sum.any_q = a.any_q + q - a.any_q * q;
  sum.any_p = a.any_p + p - a.any_p * p;
  for (std::size_t j = 0; j < b.masses.size(); ++j) {
    const auto at = static_cast<std::size_t>(b.places[j] - b.places.front());
    for (std::size_t i = 0; i < a.masses.size(); ++i) sum.masses[i + at] += a.masses[i] * b.masses[j];
  }
  sum.infinite = a.infinite + b.infinite;
  return sum;
}

// Probabilities instead of tilted masses: where a grid puts its masses may depend on the tilt, their composition not.
GridLoss untilted(GridLoss grid, const Window& window) {
  for (std::size_t i = 0; i < grid.masses.size(); ++i) {
    const double loss = grid.loss(i, window.spacing);
    grid.masses[i] *= std::exp(grid.log_scale - window.tilt * loss);
  }
  return grid;
}

long double delta_of(const Losses& losses, double spacing, double epsilon, Bound bound) {
  // Of what is beyond the grids, all counts where its losses are above epsilon whatever the other steps lose; else it may.
  const long double beyond = losses.any_p, taken = std::exp(static_cast<long double>(epsilon)) * losses.any_q;
  const bool all = bound == Bound::lower || epsilon < losses.lowest_beyond + losses.lowest;
  long double delta = losses.infinite + (all ? std::max(0.0L, beyond - taken) : beyond);
  for (std::size_t i = 0; i < losses.masses.size(); ++i) {
    const long double loss = losses.offset + static_cast<double>(losses.first + static_cast<std::int64_t>(i)) * spacing;
    if (loss > epsilon) delta += losses.masses[i] * -std::expm1(epsilon - loss);
  }
  return delta;
}

class CompositionTest : public testing::TestWithParam<std::vector<SampledGaussian>> {};

TEST_P(CompositionTest, AgreesWithConvolution) {
  Spending spending;
  spending.sampled = GetParam();
  for (Direction direction : {Direction::remove, Direction::add}) {
    for (double log_delta : {std::log(0.05), std::log(1e-6), std::log(1e-15)}) {
      // Without the sample the loss is bounded; so close to its end the transform may give up digits.
      if (direction == Direction::add && log_delta < -30) continue;
      auto window = window_at_delta(spending, direction, log_delta);
      ASSERT_TRUE(window);
      // Coarse enough for a quadratic convolution; the claim is about one and the same grid.
      window->spacing = std::max(window->spacing, std::min(0.05, 0.2 / (1 + window->tilt)));
      for (Bound bound : {Bound::upper, Bound::lower}) {
        Losses losses;
        for (const SampledGaussian& step : GetParam()) {
          const GridLoss grid = grid_loss(step.sampling_probability, step.noise_multiplier, direction, bound,
                                          {window->spacing, window->tilt, window->reach, 0,
                                           window->log_fine - std::log(step.count), window->widest});
          for (int i = 0; i < step.count; ++i) losses = convolve(losses, untilted(grid, *window));
        }
        const Composition composition(spending, direction, bound, *window);
        for (double shift : {-0.5, 0.0, 0.013, 0.5}) {
          const double epsilon = std::max(0.0, window->epsilon + shift * window->deviation);
          const auto slow = static_cast<double>(delta_of(losses, window->spacing, epsilon, bound));
          if (slow < 1e-250) continue;
          const double fast = std::exp(composition.log_delta(epsilon));
          EXPECT_NEAR(fast, slow, 1e-6 * slow) << "log_delta " << log_delta << " shift " << shift;
          if (bound == Bound::upper) EXPECT_GE(fast, slow * (1 - 1e-12));
          if (bound == Bound::lower) EXPECT_LE(fast, slow * (1 + 1e-12));
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(, CompositionTest,
                         testing::Values(std::vector<SampledGaussian>{{0.2, 1, 2}},
                                         std::vector<SampledGaussian>{{0.5, 0.7, 5}},
                                         std::vector<SampledGaussian>{{0.3, 2, 12}},
                                         std::vector<SampledGaussian>{{0.1, 1, 3}, {0.4, 2, 2}},
                                         std::vector<SampledGaussian>{{0.1, 1, 2}, {0.1, 1.5, 1}, {0.9, 3, 2}}));

// Where a record is rarely drawn, most of the range of losses is kept apart.
TEST(Composition, AgreesWithConvolutionWhereTheGridIsCut) {
  for (const std::vector<SampledGaussian>& steps : {std::vector<SampledGaussian>{{1e-4, 0.5, 3}}, {{1e-3, 0.45, 2}, {5e-4, 0.7, 2}}}) {
    Spending spending;
    spending.sampled = steps;
    const double epsilon = 3e-3;
    const Interval guess = pld_direction_delta(spending, epsilon, Direction::remove);
    auto window = window_at_epsilon(spending, Direction::remove, epsilon, std::log(guess.upper));
    ASSERT_TRUE(window);
    ASSERT_LT(window->reach.cut, 0.02);
    window->spacing = std::max(window->spacing, epsilon / 200);
    for (Bound bound : {Bound::upper, Bound::lower}) {
      Losses losses;
      for (const SampledGaussian& step : steps) {
        const GridLoss grid = grid_loss(step.sampling_probability, step.noise_multiplier, Direction::remove, bound,
                                        {window->spacing, window->tilt, window->reach, 0, window->log_fine - std::log(step.count), window->widest});
        EXPECT_GT(grid.beyond.excess, 0.01 * guess.upper);
        for (int i = 0; i < step.count; ++i) losses = convolve(losses, untilted(grid, *window));
      }
      const Composition composition(spending, Direction::remove, bound, *window);
      for (double at : {0.8 * epsilon, epsilon, 1.1 * epsilon}) {
        const auto slow = static_cast<double>(delta_of(losses, window->spacing, at, bound));
        const double fast = std::exp(composition.log_delta(at));
        EXPECT_NEAR(fast, slow, 1e-6 * slow) << at;
        if (bound == Bound::upper) EXPECT_GE(fast, slow * (1 - 1e-12));
        if (bound == Bound::lower) EXPECT_LE(fast, slow * (1 + 1e-12));
      }
      // Far above epsilon, where some of what is apart need not count, it still does in the upper bound.
      const double far = 20 * epsilon, most = static_cast<double>(losses.any_p);
      if (bound == Bound::upper) EXPECT_GE(std::exp(composition.log_delta(far)), most * (1 - 1e-9));
    }
  }
}

TEST(Composition, IsFiniteFarFromItsWindow) {
  Spending spending;
  spending.sampled = {{0.01, 1, 1000}};
  for (Direction direction : {Direction::remove, Direction::add}) {
    const auto window = window_at_delta(spending, direction, std::log(1e-6));
    ASSERT_TRUE(window);
    const Composition upper(spending, direction, Bound::upper, *window);
    const Composition lower(spending, direction, Bound::lower, *window);
    for (double epsilon : {0.0, 1e-9, 1.0, 100.0, 1e6}) {
      EXPECT_FALSE(std::isnan(upper.log_delta(epsilon)));
      EXPECT_FALSE(std::isnan(lower.log_delta(epsilon)));
      EXPECT_LE(lower.log_delta(epsilon), upper.log_delta(epsilon));
      EXPECT_LE(upper.log_delta(epsilon), 0);
    }
  }
}

TEST(Window, IsEmptyWhereNoGridFits) {
  Spending spending;
  spending.sampled = {{0.01, 1e-4, 10}};
  EXPECT_FALSE(window_at_delta(spending, Direction::remove, std::log(1e-6)));
  EXPECT_FALSE(window_at_epsilon(spending, Direction::remove, 1));
}

}  // namespace
}  // namespace hushgrad
