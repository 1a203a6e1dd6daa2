#include "accounting/accountants/gaussian.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

namespace hushgrad {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

double phi(double z) { return std::erfc(-z / std::sqrt(2.0)) / 2; }

// Balle and Wang 2018, Theorem 8, as printed; loses digits where delta is small.
double printed_formula(double mu, double epsilon) {
  return phi(mu / 2 - epsilon / mu) - std::exp(epsilon) * phi(-mu / 2 - epsilon / mu);
}

TEST(GaussianLogDelta, AgreesWithThePrintedFormula) {
  for (double mu : {0.01, 0.3, 1.0, 4.0}) {
    for (double epsilon : {-2.0, -0.1, 0.0, 0.01, 1.0, 3.0}) {
      const double printed = printed_formula(mu, epsilon);
      EXPECT_NEAR(std::exp(gaussian_log_delta(mu, epsilon).value), printed, 1e-13) << mu << " " << epsilon;
    }
  }
}

struct Reference {
  double mu, epsilon, log_delta;
};

// mpmath, 120 digits: log(Phi(mu/2 - epsilon/mu) - exp(epsilon) Phi(-mu/2 - epsilon/mu)).
TEST(GaussianLogDelta, IsRelativelyAccurateFarInTheTail) {
  for (const Reference& r : {Reference{0.001, 1, -500021.14220749511}, Reference{0.3, 10, -559.7055041088712},
                             Reference{3, 100, -513.51467477209155}, Reference{1, 1e-6, -0.95991713943487822},
                             Reference{30, 0, 0.0}}) {
    const LogDelta log_delta = gaussian_log_delta(r.mu, r.epsilon);
    EXPECT_LE(std::abs(log_delta.value - r.log_delta), log_delta.error + 4e-15 * std::abs(r.log_delta));
    EXPECT_LT(log_delta.error, 1e-9);
  }
}

// google/differential-privacy b5b0286, dp_accounting/pld/privacy_loss_mechanism_test.py
TEST(SampledGaussianLogDelta, PublishedValues) {
  const auto delta = [](double q, double sigma, double sensitivity, double epsilon, Direction direction) {
    return std::exp(sampled_gaussian_log_delta(q, sigma / sensitivity, epsilon, direction).value);
  };
  EXPECT_NEAR(delta(1, 1, 3, 1, Direction::add), 0.78760074, 1e-7);
  EXPECT_NEAR(delta(1, 1, 1, 2, Direction::add), 0.02092364, 1e-7);
  EXPECT_NEAR(delta(0.7, 1, 3, 1, Direction::add), 0.1195051215523554, 1e-14);
  EXPECT_NEAR(delta(0.2, 1, 1, 0.1, Direction::add), 0.02337934, 1e-7);
  EXPECT_NEAR(delta(0.2, 1, 1, 0.2, Direction::add), 0.00020196, 1e-7);
  EXPECT_NEAR(delta(0.8, 1, 1, 1, Direction::remove), 0.0816951786585355, 1e-14);
  EXPECT_NEAR(delta(0.7, 1, 3, 1, Direction::remove), 0.5356298793262404, 1e-14);
  EXPECT_NEAR(delta(0.4, 2, 6, 1, Direction::remove), 0.2888308005139968, 1e-14);
  EXPECT_NEAR(delta(0.3, 1, 1, 2, Direction::remove), 0.0003341102928869332, 1e-16);
  EXPECT_NEAR(delta(0.2, 5, 5, -0.25, Direction::remove), 0.2211992169285951, 1e-14);
  EXPECT_NEAR(delta(0.2, 1, 1, 1, Direction::remove), 0.00229682, 1e-7);
}

TEST(SampledGaussianLogDelta, WithoutTheSampleTheLossIsBounded) {
  EXPECT_EQ(sampled_gaussian_log_delta(0.2, 1, 0.3, Direction::add).value, -kInfinity);
  EXPECT_LT(sampled_gaussian_log_delta(0.2, 1, 0.2231, Direction::add).value, -40);
}

// log delta by mpmath with 80 digits.
TEST(SampledGaussianLogDelta, KeepsItsDigitsNextToNothing) {
  const struct {
    double q, s, epsilon, add, remove;
  } cases[] = {{5.63e-8, 8.03e8, 9.16e-20, -38.11701302344603873960801, -38.11701302344440907579588},
               {0.3, 1e6, 1e-8, -15.98051724273462209953407, -15.98051721841161399631559},
               {1e-3, 1e5, 1e-9, -19.46783462252828296156109, -19.46783349253207092863997}};
  for (const auto& one : cases) {
    for (const auto& [direction, truth] : {std::pair{Direction::add, one.add}, std::pair{Direction::remove, one.remove}}) {
      const LogDelta found = sampled_gaussian_log_delta(one.q, one.s, one.epsilon, direction);
      EXPECT_LE(std::abs(found.value - truth), found.error + 1e-14) << one.q << (direction == Direction::add ? " add" : " remove");
      EXPECT_LE(found.error, 1e-11);
    }
  }
}

// Around the largest loss of direction add, where 1 - e^epsilon (1 - q) is next to nothing.
TEST(SampledGaussianLogDelta, ClosesAtTheEndOfItsLosses) {
  for (double q : {1e-12, 3.126751979748148e-06, 0.3, 0.999}) {
    const double end = -std::log1p(-q);
    for (double s : {0.05, 0.8, 1e3, 8e8}) {
      for (double ulps : {-1e9, -1e6, -1e3, -100.0, -10.0, -2.0, -1.0, 0.0, 1.0, 2.0, 10.0, 100.0}) {
        const double epsilon = end * (1 + ulps * 2.2e-16);
        const LogDelta found = sampled_gaussian_log_delta(q, s, epsilon, Direction::add);
        EXPECT_FALSE(std::isnan(found.value + found.error));
        EXPECT_FALSE(std::isnan(found.value - found.error));
        // At most 1 - e^epsilon (1 - q), and never more than with the record.
        EXPECT_LE(found.value + found.error, std::log(q * (std::max(-ulps, 0.0) * 2.2e-16 / (1 - q) + 1e-13)) + 1e-6);
        EXPECT_LE(std::exp(found.value - found.error), std::exp(sampled_gaussian_log_delta(q, s, epsilon, Direction::remove).value) * (1 + 1e-9));
      }
      EXPECT_EQ(sampled_gaussian_log_delta(q, s, end * (1 + 1e-13), Direction::add).value, -kInfinity);
    }
  }
}

TEST(SampledGaussianEpsilon, EndsForEveryTarget) {
  for (double q : {1e-12, 5.63e-8, 3.126751979748148e-06, 0.4, 0.9999}) {
    for (double s : {0.05, 0.812496901976956, 30.0, 8.03e8}) {
      for (double delta : {1e-300, 1e-40, 1e-15, 1e-9, 9.497869689745429e-06, 0.3, 0.999}) {
        const Interval found = sampled_gaussian_epsilon(q, s, delta);
        EXPECT_FALSE(std::isnan(found.upper));
        EXPECT_LE(found.lower, found.upper);
        if (delta >= q) EXPECT_EQ(found.upper, 0);
      }
    }
  }
}

TEST(GaussianLogDelta, ReturnsForWhatIsNoNumber) {
  for (double epsilon : {std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()}) {
    EXPECT_FALSE(gaussian_log_delta(1, epsilon).value > -700);
  }
}

TEST(GaussianEpsilon, InvertsDelta) {
  for (double mu_squared : {1e-6, 0.25, 1.0, 100.0, 1e10}) {
    for (double delta : {0.3, 1e-5, 1e-12, 1e-300}) {
      const Interval epsilon = gaussian_epsilon(mu_squared, delta);
      ASSERT_LE(epsilon.lower, epsilon.upper);
      EXPECT_LE(epsilon.upper - epsilon.lower, 1e-9 * epsilon.upper);
      EXPECT_LE(gaussian_log_delta(std::sqrt(mu_squared), epsilon.upper).value, std::log(delta));
      if (epsilon.lower > 0) {
        EXPECT_GE(gaussian_log_delta(std::sqrt(mu_squared), epsilon.lower).value, std::log(delta));
      }
    }
  }
  // Gaussian DP with mu = 1/2 (Dong, Roth, Su 2019).
  EXPECT_NEAR(gaussian_epsilon(0.25, 1e-5).upper, 1.993091404415, 1e-9);
  // The total variation distance is below delta.
  EXPECT_EQ(gaussian_epsilon(1e-20, 1e-5).upper, 0);
}

TEST(SampledGaussianEpsilon, InvertsDelta) {
  // The smallest noise for epsilon 1, delta 1e-5, q = 0.01 of dp_accounting's own test.
  const Interval epsilon = sampled_gaussian_epsilon(0.01, 0.67379294682, 1e-5);
  EXPECT_NEAR(epsilon.upper, 1, 1e-6);
  EXPECT_LE(epsilon.upper - epsilon.lower, 1e-9);
  EXPECT_EQ(sampled_gaussian_epsilon(1e-6, 1, 1e-5).upper, 0);
  const Interval large = sampled_gaussian_epsilon(0.5, 1e-3, 1e-5);
  EXPECT_GT(large.lower, 5e5);
  EXPECT_LT(large.upper, 6e5);
}

}  // namespace
}  // namespace hushgrad
