#include "dpcore/random/statistics.h"

#include <gtest/gtest.h>

namespace hushgrad::testing {
namespace {

// Values of mpmath 1.3: gammainc(shape, x, regularized=True), ncdf.
TEST(Statistics, AgreeWithMpmath) {
  EXPECT_NEAR(double(gamma_tail(0.5L, 2.0L)), 0.045500263896358414, 1e-15);
  EXPECT_NEAR(double(gamma_tail(50.0L, 40.0L)), 0.92966493334060505, 1e-13);
  EXPECT_NEAR(double(gamma_tail(127.5L, 190.0L)) / 6.0725460924785471e-7, 1.0, 1e-9);
  EXPECT_NEAR(double(normal_mass(5.0L, 6.0L)) / 2.8566498423415621e-7, 1.0, 1e-9);
}

TEST(Statistics, ChiSquareSeesAWrongDie) {
  const std::vector<long double> fair(6, 1 / 6.0L);
  const std::vector<std::int64_t> right{1003, 987, 1012, 995, 1001, 1002},
      wrong{1003, 787, 1212, 995, 1001, 1002};
  EXPECT_GT(chi_square_p(right, fair, 6000), 0.9);
  EXPECT_LT(chi_square_p(wrong, fair, 6000), kFalseAlarm);
}

TEST(Statistics, PoissonTailsAreExact) {
  EXPECT_NEAR(poisson_p(0, 20.0), std::exp(-20.0), 1e-15);
  EXPECT_LT(poisson_p(60, 20.0), kFalseAlarm);
  EXPECT_GT(poisson_p(22, 20.0), 0.3);
}

}  // namespace
}  // namespace hushgrad::testing
