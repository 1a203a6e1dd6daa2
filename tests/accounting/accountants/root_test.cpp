#include "accounting/accountants/root.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

namespace hushgrad {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// 3 - x, unknown on [from, to].
Crossing crossing(double from, double to, double guess) {
  const auto f = [&](double x) { return x >= from && x <= to ? std::numeric_limits<double>::quiet_NaN() : 3 - x; };
  return find_crossing(f, guess, 0.5, 1e-6);
}

TEST(FindCrossing, BothEndsWereSeen) {
  for (double guess : {0.0, 1.0, 2.9, 3.0, 5.0, 100.0}) {
    const Crossing found = crossing(-2, -1, guess);
    EXPECT_LT(found.below, 3);
    EXPECT_GE(found.above, 3);
    EXPECT_LT(found.above - found.below, 1e-5);
  }
}

TEST(FindCrossing, WhatIsUnknownClaimsNothing) {
  for (double guess : {0.0, 1.0, 1.7, 2.9, 3.0, 3.2, 5.0, 100.0}) {
    for (double from : {0.0, 0.6, 1.5, 2.8, 2.9999, 4.0}) {
      for (double width : {0.0, 1e-4, 1.0, 300.0}) {
        const Crossing found = crossing(from, from + width, guess);
        EXPECT_LT(found.below, 3) << guess << ' ' << from << ' ' << width;
        EXPECT_GE(found.above, 3) << guess << ' ' << from << ' ' << width;
      }
    }
  }
  EXPECT_EQ(crossing(0, 1000, 1).above, kInfinity);
}

}  // namespace
}  // namespace hushgrad
