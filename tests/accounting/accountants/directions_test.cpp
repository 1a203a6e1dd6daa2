// Each direction of a composition alone, against closed forms and integration; and that the larger one is what counts.
#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include <gtest/gtest.h>

#include "accounting/accountants/loss.h"
#include "accounting/accountants/pairs.h"
#include "accounting/accountants/pld.h"

namespace hushgrad {
namespace {

constexpr Direction kBoth[] = {Direction::remove, Direction::add};

Spending sampled(std::vector<SampledGaussian> steps, double mu_squared = 0) {
  Spending spending;
  spending.sampled = std::move(steps);
  spending.mu_squared = mu_squared;
  return spending;
}

double one_step(const SampledGaussian& step, double epsilon, Direction direction) {
  if (step.noise_multiplier == 0) return 0;
  return std::exp(sampled_gaussian_log_delta(step.sampling_probability, step.noise_multiplier, epsilon, direction).value);
}

// The first step is integrated over what it releases, the second is the closed form. Trapezoids of a smooth, fast falling
// integrand: right to 1e-6.
double two_steps(const SampledGaussian& first, const SampledGaussian& second, double epsilon, Direction direction) {
  const double q = first.sampling_probability, s = first.noise_multiplier, low = -12 * s, high = 1 + 12 * s;
  const SampledLoss loss(q, s);
  const int n = q < 0.01 ? 20000 : 1500;  // rare draws leave next to nothing elsewhere
  double sum = 0;
  for (int i = 0; i <= n; ++i) {
    const double x = low + (high - low) * i / n, l = loss(x);
    const double density = std::exp(-x * x / (2 * s * s)) / (s * std::sqrt(2 * 3.14159265358979));
    sum += direction == Direction::remove ? density * std::exp(l) * one_step(second, epsilon - l, direction)
                                          : density * one_step(second, epsilon + l, direction);
  }
  return sum * (high - low) / n;
}

void expect_contains(Interval interval, double truth, double slack, const char* what) {
  EXPECT_LE(interval.lower, truth + slack) << what;
  EXPECT_GE(interval.upper, truth - slack) << what;
}

TEST(Directions, OneStepIsItsClosedForm) {
  for (const SampledGaussian& step : {SampledGaussian{0.3, 1, 1}, {0.01, 0.7, 1}, {0.8, 2, 1}}) {
    const double end = -std::log1p(-step.sampling_probability);  // of the losses of direction add
    for (Direction direction : kBoth) {
      for (double epsilon : {0.0, 0.5 * end, 0.9 * end, 1.05 * end, 1.5 * end}) {
        const double truth = one_step(step, epsilon, direction);
        const Interval found = pld_direction_delta(sampled({step}), epsilon, direction);
        expect_contains(found, truth, 1e-9 * truth, direction == Direction::add ? "add" : "remove");
        if (direction == Direction::add && epsilon > end) EXPECT_EQ(found.upper, 0);
        if (truth > 1e-3) EXPECT_LT(found.upper - found.lower, 0.05 * truth) << epsilon;
      }
    }
  }
}

TEST(Directions, TwoStepsAreIntegrated) {
  const SampledGaussian a{0.3, 1, 1}, b{0.15, 0.8, 1}, plain{1, 1.5, 1};
  const double end_a = -std::log1p(-a.sampling_probability), end_b = -std::log1p(-b.sampling_probability);
  for (Direction direction : kBoth) {
    // Beyond the end of one step alone, short of that of both.
    for (double epsilon : {0.05, std::max(end_a, end_b) * 1.05, 0.9 * (end_a + end_b)}) {
      expect_contains(pld_direction_delta(sampled({b, a}), epsilon, direction), two_steps(a, b, epsilon, direction), 1e-6, "sampled");
    }
    const Spending twice = sampled({{a.sampling_probability, a.noise_multiplier, 2}});
    for (double epsilon : {0.05, 1.2 * end_a, 1.8 * end_a}) {
      expect_contains(pld_direction_delta(twice, epsilon, direction), two_steps(a, a, epsilon, direction), 1e-6, "twice");
    }
    // A plain Gaussian has losses without end, in both directions.
    for (double epsilon : {0.05, 1.2 * end_a, 3 * end_a}) {
      const double mu = 1 / plain.noise_multiplier;
      const double truth = two_steps(a, plain, epsilon, direction);
      expect_contains(pld_direction_delta(sampled({a}, mu * mu), epsilon, direction), truth, 1e-6, "gaussian");
      expect_contains(pld_direction_epsilon(sampled({a}, mu * mu), truth, direction), epsilon, 1e-4, "gaussian");
    }
  }
}

// Rare draws: epsilon is next to nothing and most of the range of losses is kept apart.
TEST(Directions, RareDrawsAreIntegrated) {
  const SampledGaussian a{1e-4, 0.5, 1}, b{1e-5, 0.35, 1};
  for (double epsilon : {2e-4, 3e-3, 0.05}) {
    for (const auto& [steps, truth] : {std::pair{std::vector<SampledGaussian>{{1e-4, 0.5, 2}}, two_steps(a, a, epsilon, Direction::remove)},
                                       std::pair{std::vector<SampledGaussian>{b, a}, two_steps(b, a, epsilon, Direction::remove)}}) {
      const Interval found = pld_direction_delta(sampled(steps), epsilon, Direction::remove);
      expect_contains(found, truth, 1e-6 * truth, "delta");
      EXPECT_LT(found.upper - found.lower, 0.02 * truth);
      const Interval inverse = pld_direction_epsilon(sampled(steps), truth, Direction::remove);
      expect_contains(inverse, epsilon, 1e-6 * epsilon, "epsilon");
      EXPECT_LT(inverse.upper - inverse.lower, 1e-3 * epsilon);
    }
  }
}

// Two very rare draws, targets from common to next to impossible.
TEST(Directions, TheRarestDrawsAreIntegrated) {
  for (const SampledGaussian& a : {SampledGaussian{1e-6, 0.3, 1}, {1e-6, 0.491, 1}, {6e-5, 0.505, 1}, {1e-6, 0.559, 1}}) {
    for (double epsilon : {5e-3, 0.3, 2.0}) {
      const double truth = two_steps(a, a, epsilon, Direction::remove);
      if (truth < 1e-14) continue;
      const Spending twice = sampled({{a.sampling_probability, a.noise_multiplier, 2}});
      const Interval found = pld_direction_delta(twice, epsilon, Direction::remove);
      expect_contains(found, truth, 1e-6 * truth, "delta");
      const Interval inverse = pld_direction_epsilon(twice, truth, Direction::remove);
      expect_contains(inverse, epsilon, 1e-6 * epsilon, "epsilon");
      EXPECT_LT(inverse.upper - inverse.lower, 1e-3 * epsilon) << a.noise_multiplier << " " << epsilon;
    }
  }
}

// The same mechanism with the names of the neighbours exchanged.
class Swapped : public LossPair {
 public:
  explicit Swapped(LossPairPointer pair) : pair_(std::move(pair)) {}
  std::string key() const override { return "swapped " + pair_->key(); }
  Outcomes outcomes(double spacing, double offset, double log_rest) const override {
    Outcomes outcomes = pair_->outcomes(spacing, -offset, log_rest);
    for (Outcome& one : outcomes.list) {
      const double loss = outcomes.offset + static_cast<double>(one.place) * spacing + one.above;
      one = {-one.place - 1, spacing - one.above, one.log_q + loss};
    }
    outcomes.offset = offset;
    std::reverse(outcomes.list.begin(), outcomes.list.end());
    std::swap(outcomes.low_p, outcomes.high_q);
    std::swap(outcomes.low_q, outcomes.high_p);
    return outcomes;
  }
  LossRange range(double log_rest) const override {
    const LossRange range = pair_->range(log_rest);
    return {-range.high, -range.low};
  }
  double centre() const override { return -pair_->centre(); }

 private:
  LossPairPointer pair_;
};

// Of all events here remove is the worse direction. With the neighbours exchanged it is add, which must count just as much.
TEST(Directions, TheWorseOneCounts) {
  const LossPairPointer mixture = gaussian_mixture_pair(0.8, {0, 1}, {0.9, 0.1});
  Spending straight, swapped;
  straight.pairs = {{mixture, 5}};
  swapped.pairs = {{std::make_shared<Swapped>(mixture), 5}};
  const double delta = 1e-6;
  const Interval remove = pld_direction_epsilon(straight, delta, Direction::remove);
  const Interval add = pld_direction_epsilon(straight, delta, Direction::add);
  ASSERT_LT(add.upper, 0.8 * remove.lower);
  const Interval swapped_add = pld_direction_epsilon(swapped, delta, Direction::add);
  EXPECT_NEAR(swapped_add.upper, remove.upper, 1e-3 * remove.upper);
  EXPECT_NEAR(pld_direction_epsilon(swapped, delta, Direction::remove).upper, add.upper, 1e-3 * remove.upper);
  for (const Spending& either : {straight, swapped}) {
    const Interval both = pld_epsilon(either, delta);
    EXPECT_GE(both.upper, remove.lower);
    EXPECT_LE(both.lower, remove.upper);
    EXPECT_NEAR(both.upper, remove.upper, 1e-3 * remove.upper);
    const double at = 0.7 * remove.upper;
    const Interval one = pld_direction_delta(straight, at, Direction::remove), found = pld_delta(either, at);
    EXPECT_GE(found.upper, one.lower);
    EXPECT_LE(found.lower, one.upper);
    EXPECT_LT(found.upper, 1.1 * one.upper);
  }
}

TEST(Directions, OnlyCompositionsHaveThem) {
  Spending gap = sampled({{0.1, 1, 5}});
  gap.failure = 1e-9;
  EXPECT_ANY_THROW(pld_direction_epsilon(gap, 1e-6, Direction::remove));
  EXPECT_ANY_THROW(pld_direction_delta(gap, 1, Direction::add));
}

}  // namespace
}  // namespace hushgrad
