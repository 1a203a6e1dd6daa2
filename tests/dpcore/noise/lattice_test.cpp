#include "dpcore/noise/lattice.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

#include "dpcore/error.h"

namespace hushgrad {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr std::uint64_t kDimensions[] = {
    1, 2, 3, 17, 1000, 25'000'000, 1'000'000'007, std::uint64_t{1} << 40};

// Every clause of the header, in long double.
TEST(ChooseLattice, KeepsItsContract) {
  for (double noise : {1e-8, 1e-3, 0.3, 1.0, 1.1, 7.0, 1000.0}) {
    for (double clip : {1e-15, 0.1, 1.0, 3.7, 1e10}) {
      for (std::uint64_t d : kDimensions) {
        const Lattice lattice = choose_lattice(noise, clip, d);
        const long double root = std::sqrt(static_cast<long double>(d)), c = clip, grid = lattice.grid;
        int exponent;
        EXPECT_EQ(std::frexp(lattice.grid, &exponent), 0.5) << "a power of two";
        const long double limit = std::min(0x1p-14L * c / root, 0x1p-10L * noise * c);
        EXPECT_LE(grid, limit * (1 + 0x1p-50L));
        EXPECT_GT(2 * grid, limit * (1 - 0x1p-50L)) << "the largest";
        const long double paid = static_cast<long double>(noise) * (c + root * grid);
        EXPECT_GE(lattice.noise_stddev, paid) << "never below what rounding costs";
        EXPECT_LE(lattice.noise_stddev, paid * (1 + 0x1p-48L));
        EXPECT_LE(lattice.noise_stddev, noise * c * (1 + 0x1p-13L));
      }
    }
  }
}

TEST(ChooseLattice, ZeroNoiseIsZero) { EXPECT_EQ(choose_lattice(0.0, 1.0, 100).noise_stddev, 0.0); }

TEST(ChooseLattice, DimensionZeroIsLikeOne) {
  EXPECT_EQ(choose_lattice(1.0, 1.0, 0).grid, choose_lattice(1.0, 1.0, 1).grid);
  EXPECT_EQ(choose_lattice(1.0, 1.0, 1).grid, 0x1p-14);
}

TEST(ChooseLattice, RefusesWhatItCannotKeep) {
  for (double noise : {-1.0, kNan, kInf, 1e-12, 1e12}) {
    EXPECT_THROW(choose_lattice(noise, 1.0, 10), InvalidArgument) << noise;
  }
  for (double clip : {0.0, -1.0, kNan, kInf, 1e-30, 1e30}) {
    EXPECT_THROW(choose_lattice(1.0, clip, 10), InvalidArgument) << clip;
  }
  EXPECT_THROW(choose_lattice(1.0, 1.0, (std::uint64_t{1} << 48) + 1), InvalidArgument);
  EXPECT_NO_THROW(choose_lattice(60'000.0, 1.0, 1'000'000'000));
  EXPECT_THROW(choose_lattice(1e6, 1.0, 1'000'000'000), InvalidArgument);
}

TEST(ChooseLattice, SaysWhatToDo) {
  try {
    choose_lattice(1.0, -2.0, 10);
    FAIL();
  } catch (const InvalidArgument& e) {
    EXPECT_EQ(
        std::string(e.what()),
        "[noise] Expected l2_sensitivity in [2^-64, 2^64], received -2. Choose max_grad_norm near the usual "
        "gradient norm.");
  }
}

}  // namespace
}  // namespace hushgrad
