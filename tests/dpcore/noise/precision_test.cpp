#include "dpcore/noise/precision.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "dpcore/noise/lattice.h"

namespace hushgrad {
namespace {

TEST(NoisePrecision, IsNothingWhereNoNoiseIsDrawn) {
  EXPECT_TRUE(fast_noise_precision(0, std::vector<std::size_t>{10}).exact());
  EXPECT_TRUE(fast_noise_precision(1, std::vector<std::size_t>{}).exact());
  EXPECT_TRUE(fast_noise_precision(1, std::vector<std::size_t>{0, 0}).exact());
}

// The formula of docs/proofs/lattice_gaussian.md, section 4, in long double.
TEST(NoisePrecision, IsAtLeastWhatTheProofSays) {
  for (double z : {1e-3, 0.5, 1.0, 30.0, 1000.0, 1e5}) {
    for (std::size_t size : {1u, 2u, 3u, 1001u, 1'000'000u, 25'000'000u, 1'000'000'000u}) {
      const std::vector<std::size_t> parts{size, 1};
      const NoisePrecision precision = fast_noise_precision(z, parts);
      const long double pairs = static_cast<long double>(size / 2 + size % 2 + 1);
      long double sigma = 0;  // the largest over sensitivities: the grid follows them in powers of two
      for (double c = 1; c < 2; c += 0.01) {
        const Lattice lattice = choose_lattice(std::min(z, 1e4), c, size + 1);
        sigma = std::max<long double>(sigma, lattice.noise_stddev / lattice.grid * (z / std::min(z, 1e4)));
      }
      const long double coarser = std::max(1.0L, sigma * 0x1p-30L);
      const long double v = std::exp2(-71.5L) * coarser * coarser;
      EXPECT_GE(precision.divergence, static_cast<double>(pairs * 1.36L * precision.order * v)) << z << " " << size;
      EXPECT_LE(precision.divergence, static_cast<double>(12 * pairs * 1.36L * precision.order * v)) << z << " " << size;
      EXPECT_GE(precision.failure, static_cast<double>(pairs * 0x1p-960L));
      EXPECT_GE(precision.order, 2.0);
      EXPECT_LE(precision.order * coarser, 0x1p28L);
    }
  }
}

TEST(NoisePrecision, CostsTenThousandthsOfEpsilon) {
  const auto lambda = [](double z, std::size_t size, double steps) {
    const NoisePrecision p = fast_noise_precision(z, std::vector<std::size_t>{size});
    return steps * p.divergence + 30 / (p.order - 1);
  };
  EXPECT_LT(lambda(1, 1000, 1e4), 2e-6);
  EXPECT_LT(lambda(1, 25'000'000, 1e4), 1.5e-4);
  EXPECT_LT(lambda(1, 1'000'000'000, 1e5), 6e-3);
}

}  // namespace
}  // namespace hushgrad
