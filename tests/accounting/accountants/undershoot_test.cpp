// How far losses fall below zero, against integration.
#include "accounting/accountants/undershoot.h"

#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "accounting/accountants/loss.h"
#include "accounting/accountants/pairs.h"

namespace hushgrad {
namespace {

// E_Q[(1 + u)^-tilt - 1 + tilt u], the last part of which has mean 0: trapezoids of what is never negative.
double moment(double q, double s, double tilt) {
  const SampledLoss loss(q, s);
  const double low = -40 * s, high = 40 * s + 3;
  const int n = 400000;
  double sum = 0;
  for (int i = 0; i <= n; ++i) {
    const double x = low + (high - low) * i / n, l = loss(x);
    sum += std::exp(-x * x / (2 * s * s)) * (std::expm1(-tilt * l) + tilt * std::expm1(l));
  }
  return sum * (high - low) / n / (s * std::sqrt(2 * 3.14159265358979323846));
}

TEST(Undershoot, MomentsAreNeverBelowTheIntegral) {
  for (double q : {1e-6, 1e-3, 0.05, 0.5}) {
    for (double s : {0.4, 1.0, 7.0}) {
      for (double tilt : {0.1, 1.0, 20.0, 1e3, 1e5}) {
        const double bound = log_undershoot_moment({q, s, 1, nullptr}, tilt);
        const double truth = std::log1p(moment(q, s, tilt));
        ASSERT_FALSE(std::isnan(bound));
        if (!(bound < std::numeric_limits<double>::infinity())) continue;
        EXPECT_GE(bound, truth * (1 - 1e-6)) << q << " " << s << " " << tilt;
        if (q * tilt < 0.1) EXPECT_LE(bound, 5 * truth) << q << " " << s << " " << tilt;
      }
    }
  }
}

TEST(Undershoot, APlainGaussianIsExact) {
  for (double tilt : {0.3, 4.0, 100.0}) {
    const double variance = 1 / (0.8 * 0.8);
    EXPECT_NEAR(log_undershoot_moment({1, 0.8, 1, nullptr}, tilt), tilt * variance / 2 + tilt * tilt * variance / 2, 1e-9 * tilt * tilt);
  }
}

TEST(Undershoot, IsUnknownForOtherPairsAndForNextToNoNoise) {
  EXPECT_EQ(log_undershoot_moment({1, 1, 1, laplace_pair(1, 1)}, 2), std::numeric_limits<double>::infinity());
  EXPECT_GT(log_undershoot_moment({0.1, 0.02, 1, nullptr}, 2), 0);
  EXPECT_GT(undershoot({{1, 1, 3, laplace_pair(1, 1)}}, -20).depth, 1e300);
}

// Of one plain Gaussian the Chernoff bound is exp(-d^2 / 2) at d deviations below its mean -1/2.
TEST(Undershoot, TheDepthIsThatOfTheBestTilt) {
  const double log_probability = -20, best = 0.5 + std::sqrt(2 * 20);
  const Undershoot found = undershoot({{1, 1, 1, nullptr}}, log_probability);
  EXPECT_NEAR(found.depth, best, 2e-3 * best);
  EXPECT_GE(found.depth, best * (1 - 1e-12));
  EXPECT_NEAR(found.tilt, std::sqrt(2 * 20), 0.5);
}

// As many draws as one, each with next to no loss unless its noise is large: never further down than all of them can go.
TEST(Undershoot, ManyRareStepsHardlyMove) {
  const std::vector<Step> steps{{1e-6, 0.65, 1e6, nullptr}};
  const double deviation = 1e-6 * std::sqrt(1e6 * std::expm1(1 / (0.65 * 0.65)));
  const Undershoot found = undershoot(steps, -20);
  EXPECT_LT(found.depth, 1.2 * std::sqrt(2 * 20) * deviation);
  EXPECT_GT(found.depth, deviation);
}

}  // namespace
}  // namespace hushgrad
