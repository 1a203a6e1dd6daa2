#include "dpcore/clipping/clipping_pass.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "dpcore/error.h"

namespace hushgrad {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
const std::vector<double> kSquares{0.0, 0.25, 4.0, 9.0, std::nan(""), kInfinity, -1.0, 1e-320, 1e300};

TEST(ClippingPass, FactorsBoundEveryNorm) {
  for (const auto function : {ClippingFunction::clip, ClippingFunction::normalise}) {
    const ClippingPass pass(2.0, function);
    const auto result = pass.factors(kSquares);
    for (std::size_t b = 0; b < kSquares.size(); ++b) {
      if (!(std::isfinite(kSquares[b]) && kSquares[b] >= 0)) {
        EXPECT_EQ(result.factors[b], 0.0);
        continue;
      }
      EXPECT_LE(result.factors[b] * std::sqrt(kSquares[b]), 2.0 * (1 + 1e-15));
    }
    EXPECT_EQ(result.omitted, (std::vector<std::int64_t>{4, 5, 6}));
    EXPECT_EQ(result.unclipped, 4);  // 0, 0.5, 2, and the subnormal
  }
}

TEST(ClippingPass, ClipLeavesSmallGradientsAloneAndNormaliseDoesNot) {
  const std::vector<double> small{1.0};
  EXPECT_EQ(ClippingPass(2.0).factors(small).factors[0], 1.0);
  EXPECT_DOUBLE_EQ(ClippingPass(2.0, ClippingFunction::normalise).factors(small).factors[0], 2.0 / 1.01);
}

TEST(ClippingPass, GroupsAddUpToTheSensitivity) {
  ClippingPass pass(std::vector<double>{3.0, 4.0});
  const std::vector<double> large{100.0};
  EXPECT_DOUBLE_EQ(pass.factors(large, 0).factors[0], 0.3);
  EXPECT_DOUBLE_EQ(pass.factors(large, 1).factors[0], 0.4);
  EXPECT_GE(pass.l2_sensitivity(), 5.0);
  EXPECT_LE(pass.l2_sensitivity(), 5.0 * (1 + 1e-14));
  EXPECT_EQ(pass.finish({}).l2_sensitivity(), pass.l2_sensitivity());
}

TEST(ClippingPass, TheCountMovesByOneHalfWithASample) {
  for (double square : {0.5, 50.0}) {
    ClippingPass with(1.0), without(1.0);
    const std::vector<double> others{0.1, 7.0, 0.2};
    std::vector<double> all = others;
    all.push_back(square);
    with.count(with.factors(all));
    without.count(without.factors(others));
    float x = 0, y = 0;
    const ClippedSum a = with.finish_count(x), b = without.finish_count(y);
    EXPECT_EQ(std::abs(x - y), 0.5F);
    EXPECT_EQ(a.l2_sensitivity(), 0.5);
    EXPECT_EQ(b.dimension(), 1u);
  }
}

TEST(ClippingPass, ASumAndACountAreTakenOnce) {
  ClippingPass pass(1.0);
  float count = 0;
  (void)pass.finish({});
  (void)pass.finish_count(count);
  EXPECT_THROW((void)pass.finish({}), PrivacyViolation);
  EXPECT_THROW((void)pass.finish_count(count), PrivacyViolation);
}

TEST(ClippingPass, BoundsOutsideTheirDomainAreRefused) {
  for (double bound : {0.0, -1.0, kInfinity, std::nan("")}) {
    EXPECT_THROW(ClippingPass{bound}, InvalidArgument) << bound;
    EXPECT_THROW(ClippingPass(std::vector<double>{1.0, bound}), InvalidArgument) << bound;
  }
  EXPECT_THROW(ClippingPass(std::vector<double>{}), InvalidArgument);
}

}  // namespace
}  // namespace hushgrad
