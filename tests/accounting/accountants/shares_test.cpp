// Both ways to the coefficients against the sum that defines them, and the proof that high frequencies do not matter.
#include "accounting/accountants/shares.h"

#include <cmath>
#include <numbers>

#include <gtest/gtest.h>

namespace hushgrad {
namespace {

constexpr std::size_t kLength = 640;

// A bump around place 0 and a thin, wide tail, as the losses of a step are. `peak` is what is missing to 1.
SparseMasses steps(double peak) {
  SparseMasses masses;
  double total = 0;
  const auto add = [&](std::int64_t place, double mass) {
    masses.places.push_back(place);
    masses.masses.push_back(mass);
    total += mass;
  };
  for (std::int64_t k = -9; k <= 14; ++k) {
    if (k != 0) add(k, std::exp(-0.02 * static_cast<double>(k * k)));
  }
  for (std::int64_t k = 17; k < 2000; k += k / 7) add(k, 1e-3 / static_cast<double>(k));
  for (double& mass : masses.masses) mass *= (1 - peak) / total;
  return masses;
}

std::complex<long double> away(const SparseMasses& masses, std::size_t j) {
  std::complex<long double> sum = 0;
  for (std::size_t i = 0; i < masses.places.size(); ++i) {
    const long double half = std::numbers::pi_v<long double> * static_cast<long double>(static_cast<std::int64_t>(j) * masses.places[i] % 640) / kLength;
    const long double s = std::sin(half), c = std::cos(half);
    sum += static_cast<long double>(masses.masses[i]) * std::complex<long double>(-2 * s * s, -2 * s * c);
  }
  return sum;
}

TEST(Shares, AgreeWithTheirDefinitionWithinTheirErrors) {
  for (double peak : {0.9, 0.1}) {
    const SparseMasses masses = steps(peak);
    const Shares transformed = shares_by_transform(masses, kLength), summed = shares_by_sums(masses, kLength, kLength / 2 + 1);
    const Shares both = shares_by_both(masses, kLength, kLength / 2 + 1);
    ASSERT_EQ(transformed.away.size(), kLength / 2 + 1);
    for (std::size_t j = 0; j <= kLength / 2; ++j) {
      const std::complex<double> truth(away(masses, j));
      EXPECT_LE(std::abs(transformed.away[j] - truth), transformed.error[j]) << j;
      EXPECT_LE(std::abs(summed.away[j] - truth), summed.error[j]) << j;
      EXPECT_LE(std::abs(both.away[j] - truth), both.error[j]) << j;
      EXPECT_LE(summed.error[j], 1e-12);
      EXPECT_LE(both.error[j], transformed.error[j]);
    }
  }
}

TEST(Shares, SumsAreAccurateWhereNextToNothingIsAdded) {
  SparseMasses masses{{1, 5, 3000}, {1e-9, 1e-11, 1e-15}};
  const Shares shares = shares_by_sums(masses, std::size_t{1} << 20, 100);
  for (std::size_t j = 1; j < 100; ++j) EXPECT_LE(shares.error[j], 1e-11 * std::abs(shares.away[j]));
}

TEST(SmallFrom, IsTrueOfEveryFrequencyAbove) {
  std::size_t proved = 0;
  for (double peak : {0.9, 0.3, 0.05}) {
    const SparseMasses masses = steps(peak);
    for (double limit : {0.9999, 0.99, 0.9, 0.6, 0.3, 0.05}) {
      const std::size_t from = small_from(masses, peak, kLength, limit);
      proved += from <= kLength / 2;
      for (std::size_t j = from; j <= kLength / 2; ++j) {
        EXPECT_LT(std::abs(1.0L + away(masses, j)), limit) << peak << " " << j;
      }
    }
  }
  EXPECT_GE(proved, 9u);
  // One mass alone is of size 1 at every frequency.
  EXPECT_EQ(small_from({}, 1, kLength, 0.9), kLength / 2 + 1);
}

}  // namespace
}  // namespace hushgrad
