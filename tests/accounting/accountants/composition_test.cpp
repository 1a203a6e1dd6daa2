// The transform against plain convolution of the same grids, for few steps.
#include "accounting/accountants/composition.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>
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
  std::vector<Beyond> beyond;
  double lowest = 0;  // loss
};

Losses convolve(const Losses& a, const GridLoss& b) {
  const auto width = static_cast<std::size_t>(b.places.back() - b.places.front());
  Losses sum{a.offset + b.offset, a.first + b.places.front(), std::vector<long double>(a.masses.size() + width, 0), 0};
  sum.beyond = a.beyond;
  sum.beyond.push_back(b.beyond);
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
  long double taken = losses.any_q;
  for (const Beyond& step : losses.beyond) {
    if (bound == Bound::upper && epsilon >= step.lowest_beyond + losses.lowest) taken -= step.without;
  }
  taken *= std::exp(static_cast<long double>(epsilon));
  long double delta = losses.infinite + std::clamp(losses.any_p - taken, 0.0L, losses.any_p);
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
    auto window = cut_window(spending, Direction::remove, epsilon, std::log(guess.upper));
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
      for (double at : {0.8 * epsilon, epsilon, 1.02 * epsilon}) {
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

// Where the grid ends, near epsilon or far from it, decides how tight the ends are, never whether they hold.
TEST(Composition, HoldsWhereverTheGridIsCut) {
  for (const auto& [steps, mu_squared, epsilon] : {std::tuple{std::vector<SampledGaussian>{{1e-3, 0.6, 200}}, 0.0, 0.1},
                                                   {{{1e-4, 0.5, 5000}}, 0.0, 0.5}, {{{1e-3, 0.5, 3}}, 1e-3, 0.3},
                                                   {{{1e-6, 0.6, 1e6}, {1e-3, 0.8, 100}}, 0.0, 0.2}}) {
    Spending spending;
    spending.sampled = steps;
    spending.mu_squared = mu_squared;
    const auto whole = window_at_epsilon(spending, Direction::remove, epsilon);
    ASSERT_TRUE(whole);
    const Composition above(spending, Direction::remove, Bound::upper, *whole), below(spending, Direction::remove, Bound::lower, *whole);
    for (double factor : {0.3, 0.7, 0.98, 1.0, 1.02, 1.5, 4.0}) {
      auto window = cut_window(spending, Direction::remove, epsilon, below.log_delta(epsilon));
      ASSERT_TRUE(window);
      window->reach.cut = factor * epsilon;
      const Composition upper(spending, Direction::remove, Bound::upper, *window), lower(spending, Direction::remove, Bound::lower, *window);
      for (double at : {0.5 * epsilon, 0.9 * epsilon, 0.999 * epsilon, 1.001 * epsilon, 1.1 * epsilon, 2 * epsilon}) {
        EXPECT_GE(upper.log_delta(at), below.log_delta(at)) << factor << " " << at;
        EXPECT_LE(lower.log_delta(at), above.log_delta(at)) << factor << " " << at;
        EXPECT_LE(lower.log_delta(at), upper.log_delta(at)) << factor << " " << at;
      }
    }
    const auto window = cut_window(spending, Direction::remove, epsilon, below.log_delta(epsilon));
    const Composition upper(spending, Direction::remove, Bound::upper, *window), lower(spending, Direction::remove, Bound::lower, *window);
    EXPECT_LT(upper.log_delta(epsilon) - lower.log_delta(epsilon), 0.05) << steps[0].sampling_probability << " " << upper.log_delta(epsilon);
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
