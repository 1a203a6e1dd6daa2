#include "accounting/accountants/gap.h"

#include <cmath>

#include <gtest/gtest.h>

#include "accounting/accountants/accountant.h"

namespace hushgrad {
namespace {

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

}  // namespace
}  // namespace hushgrad
