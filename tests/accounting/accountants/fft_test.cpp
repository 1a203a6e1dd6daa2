#include "accounting/accountants/fft.h"

#include <cmath>
#include <complex>
#include <numbers>

#include <gtest/gtest.h>

namespace hushgrad {
namespace {

std::vector<double> sample(std::size_t n) {
  std::vector<double> x(n);
  for (std::size_t i = 0; i < n; ++i) x[i] = std::fmod(0.37 + 0.61803398875 * static_cast<double>(i * i % 977), 1.0);
  return x;
}

TEST(Fft, LengthIsTheSmallestSupportedOne) {
  EXPECT_EQ(fft_length(0), 64u);
  EXPECT_EQ(fft_length(64), 64u);
  EXPECT_EQ(fft_length(65), 80u);
  EXPECT_EQ(fft_length(81), 96u);
  EXPECT_EQ(fft_length(97), 128u);
  EXPECT_EQ(fft_length(1000), 1024u);
  EXPECT_EQ(fft_length(1025), 1280u);
  EXPECT_EQ(fft_length(1281), 1536u);
}

TEST(Fft, AgreesWithTheSumThatDefinesItWithinItsErrorBound) {
  for (std::size_t n : {64u, 80u, 96u, 128u, 640u}) {
    const auto x = sample(n);
    const auto spectrum = real_spectrum(x);
    ASSERT_EQ(spectrum.size(), n / 2 + 1);
    for (std::size_t j = 0; j <= n / 2; ++j) {
      std::complex<long double> sum = 0;
      for (std::size_t k = 0; k < n; ++k) {
        const long double angle = -2 * std::numbers::pi_v<long double> * static_cast<long double>(j * k % n) / n;
        sum += static_cast<long double>(x[k]) * std::polar(1.0L, angle);
      }
      EXPECT_LE(std::abs(std::complex<double>(sum) - spectrum[j]), real_spectrum_error(x)) << n << " " << j;
    }
    EXPECT_LT(real_spectrum_error(x), 1e-10 * std::abs(spectrum[0]));
  }
}

}  // namespace
}  // namespace hushgrad
