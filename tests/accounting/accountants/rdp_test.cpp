#include "accounting/accountants/rdp.h"

#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

namespace hushgrad {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

Spending steps(double q, double s, double count) {
  Spending spending;
  spending.sampled.push_back({q, s, count});
  return spending;
}

struct Reference {
  double q, s, order, rdp;
};

// mpmath, 40 digits, quadrature of E[Y^order]; also the values of autodp's tests at orders 2 to 10.
TEST(SampledGaussianRdp, AgreesWithQuadratureAndIsNeverBelow) {
  for (const Reference& r :
       {Reference{0.01, 0.1, 2, 90.7896596280238}, Reference{0.01, 0.1, 2.25, 104.21069366522143},
        Reference{0.01, 0.1, 10, 494.8831442377909}, Reference{0.01, 0.25, 1.25, 0.1103603174246269},
        Reference{0.01, 0.25, 4, 25.859773085349214}, Reference{0.01, 0.5, 1.25, 0.0018977736416478479},
        Reference{0.01, 0.5, 2, 0.005345502314345245}, Reference{0.01, 0.5, 2.25, 0.0083541177519165},
        Reference{0.01, 0.01, 1.001, 906.1223027203}, Reference{0.01, 0.05, 3.3, 653.3925819071},
        Reference{0.01, 0.3, 1.1, 0.02092239477675}, Reference{0.01, 2.5, 1.5, 0.000650070897 / 50}}) {
    const double rdp = sampled_gaussian_rdp(r.q, r.s, r.order);
    EXPECT_NEAR(rdp, r.rdp, 5e-9 * r.rdp) << r.q << " " << r.s << " " << r.order;
    EXPECT_GE(rdp, r.rdp * (1 - 2e-9));
  }
}

TEST(SampledGaussianRdp, FractionalOrdersMeetTheIntegerFormula) {
  for (double q : {1e-6, 0.01, 0.7}) {
    for (double s : {0.15, 1.0, 30.0}) {
      for (double order : {2.0, 3.0, 9.0}) {
        const double integer = sampled_gaussian_rdp(q, s, order);
        EXPECT_NEAR(sampled_gaussian_rdp(q, s, std::nextafter(order, 100)), integer, 1e-9 * integer);
      }
    }
  }
}

TEST(SampledGaussianRdp, RisesWithTheOrder) {
  for (double q : {1e-6, 0.01, 0.7}) {
    for (double s : {0.01, 0.5, 30.0}) {
      double last = 0;
      for (double order = 1.01; order < 40; order *= 1.03) {
        const double rdp = sampled_gaussian_rdp(q, s, order);
        EXPECT_GE(rdp, last * (1 - 1e-9)) << q << " " << s << " " << order;
        last = rdp;
      }
    }
  }
}

TEST(SampledGaussianRdp, Edges) {
  EXPECT_EQ(sampled_gaussian_rdp(0, 1, 2), 0);
  EXPECT_EQ(sampled_gaussian_rdp(0.1, 0, 2), kInfinity);
  EXPECT_NEAR(sampled_gaussian_rdp(1, 2, 8), 1, 1e-9);
}

TEST(RdpEpsilon, PublishedValues) {
  // tensorflow/privacy 03035d5, compute_dp_sgd_privacy_test.py: (n, batch, sigma, epochs) as (q, sigma, steps).
  EXPECT_NEAR(rdp_epsilon(steps(150.0 / 60000, 1.3, 6000), 1e-5), 0.7242234026109595, 1e-6);
  EXPECT_NEAR(rdp_epsilon(steps(1e-3, 1.0, 30000), 1e-7), 1.4154988495444842, 1e-6);
  const std::vector<double> best_of_theirs{1.25};
  EXPECT_NEAR(rdp_epsilon(steps(1.024e-5, 0.1, 976563), 1e-7, best_of_theirs), 5907982.3113984, 1e-3);
  // google/differential-privacy b5b0286, rdp_privacy_accountant_test.py; every thousandth from 1 to 100.
  std::vector<double> fine;
  for (int i = 1001; i <= 100000; ++i) fine.push_back(i / 1000.0);
  Spending gaussian;
  gaussian.mu_squared = 1 / (4.530877117 * 4.530877117);
  EXPECT_NEAR(rdp_epsilon(gaussian, 1e-6, fine), 1, 1e-6);
  // meta-pytorch/opacus 88919b66, accountants_test.py
  std::vector<double> opacus;
  for (int i = 11; i < 110; ++i) opacus.push_back(i / 10.0);
  for (int i = 12; i < 64; ++i) opacus.push_back(i);
  EXPECT_NEAR(rdp_epsilon(steps(0.04, 1.5, 2250), 1e-5, opacus), 7.32911117143, 1e-7);
}

TEST(RdpEpsilon, MoreOrdersAreNeverWorse) {
  const std::vector<double> one{10};
  EXPECT_LE(rdp_epsilon(steps(0.01, 1, 1000), 1e-5), rdp_epsilon(steps(0.01, 1, 1000), 1e-5, one));
}

TEST(RdpDelta, InvertsEpsilon) {
  const Spending spending = steps(0.01, 1, 1000);
  for (double delta : {1e-3, 1e-6, 1e-12}) {
    const double epsilon = rdp_epsilon(spending, delta);
    EXPECT_LE(rdp_delta(spending, epsilon), delta * (1 + 1e-9));
    EXPECT_GE(rdp_delta(spending, epsilon), delta * (1 - 1e-6));
  }
}

TEST(RdpAccountant, Edges) {
  const RdpAccountant rdp;
  EXPECT_EQ(rdp.epsilon(Event::composed({}), 1e-5).upper, 0);
  EXPECT_EQ(rdp.delta(Event::no_op(), 0).upper, 0);
  EXPECT_EQ(rdp.epsilon(Event::non_private(), 1e-5).upper, kInfinity);
  EXPECT_EQ(rdp.delta(Event::gaussian(1), kInfinity).upper, 0);
  EXPECT_EQ(rdp.epsilon(Event::gaussian(1), 1e-5).lower, 0);
  EXPECT_LT(rdp.epsilon(Event::gaussian(1e-3), 1e-5).upper, 1e6);
}

}  // namespace
}  // namespace hushgrad
