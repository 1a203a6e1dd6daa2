#include "dpcore/sampling/sampling_rate.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "dpcore/error.h"
#include "dpcore/random/csprng.h"

namespace hushgrad {
namespace {

constexpr std::int64_t kMost = SamplingRate::max_denominator;

TEST(SamplingRate, IsInLowestTerms) {
  EXPECT_EQ(SamplingRate(32, 1000), SamplingRate(4, 125));
  EXPECT_EQ(SamplingRate(7, 7).denominator(), 1);
  EXPECT_EQ(SamplingRate(kMost - 2, kMost).numerator(), kMost / 2 - 1);
}

// long double has 64 bits of mantissa: products of a double with a denominator below 2^11 are exact.
TEST(SamplingRate, ChargesTheSmallestDoubleThatIsNotBelow) {
  for (std::int64_t denominator = 1; denominator < 2000; ++denominator) {
    for (std::int64_t numerator : {std::int64_t{1}, denominator / 3 + 1, denominator}) {
      if (numerator > denominator) continue;
      const double charged = SamplingRate(numerator, denominator).charged();
      const auto d = static_cast<long double>(denominator), n = static_cast<long double>(numerator);
      EXPECT_GE(charged * d, n);
      EXPECT_LT(std::nextafter(charged, 0.0) * d, n);
    }
  }
  Csprng rng;
  for (int i = 0; i < 10'000; ++i) {
    const auto denominator = static_cast<std::int64_t>(rng.next_u64() >> 2) + 1;
    const auto numerator = static_cast<std::int64_t>(rng.next_u64() >> 2 >> rng.next_u64() % 60) % denominator + 1;
    const SamplingRate rate(numerator, denominator);
    // charged * denominator >= numerator and not so for the double before, in integers: charged = m 2^-e.
    const auto reaches = [&](double value) {
      int exponent;
      const auto m = static_cast<unsigned __int128>(std::ldexp(std::frexp(value, &exponent), 53));
      const int e = 53 - exponent;
      return m * static_cast<unsigned __int128>(rate.denominator()) >= static_cast<unsigned __int128>(rate.numerator()) << e;
    };
    EXPECT_TRUE(reaches(rate.charged()));
    EXPECT_FALSE(reaches(std::nextafter(rate.charged(), 0.0)));
  }
}

TEST(SamplingRate, FromDoubleIsNeverAbove) {
  EXPECT_EQ(SamplingRate::from_double(0.25), SamplingRate(1, 4));
  EXPECT_EQ(SamplingRate::from_double(1.0), SamplingRate(1, 1));
  EXPECT_EQ(SamplingRate::from_double(0x1.8p-62), SamplingRate(1, kMost));
  for (double rate : {0.1, 1.0 / 3, 1e-6, 3e-17}) EXPECT_LE(SamplingRate::from_double(rate).charged(), rate);
}

TEST(SamplingRate, RefusesWhatIsNoProbability) {
  for (auto [n, d] : {std::pair<std::int64_t, std::int64_t>{0, 1}, {-1, 2}, {3, 2}, {1, 0}, {1, -1}, {1, kMost + 1}}) {
    EXPECT_THROW(SamplingRate(n, d), InvalidArgument) << n << "/" << d;
  }
  for (double rate : {0.0, -0.0, -0.1, 0x1p-63, 1.0000000000000002, std::nan(""), std::numeric_limits<double>::infinity()}) {
    EXPECT_THROW(SamplingRate::from_double(rate), InvalidArgument) << rate;
  }
}

}  // namespace
}  // namespace hushgrad
