#include "dpcore/clipping/certified_pass.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <limits>

#include "dpcore/error.h"
#include "dpcore/noise/lattice_gaussian.h"
#include "dpcore/random/insecure_seed.h"
#include "dpcore/random/statistics.h"

namespace hushgrad {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kTiny = std::numeric_limits<float>::denorm_min();
constexpr float kHuge = std::numeric_limits<float>::max();

using Steps = std::vector<std::int32_t>;

Steps contribution(const std::vector<float>& gradient, double max_grad_norm) {
  Steps steps(gradient.size());
  if (!internal::certified_steps({gradient}, max_grad_norm, CertifiedGrid(max_grad_norm), steps)) return Steps(gradient.size());
  return steps;
}

unsigned __int128 squares(const Steps& steps) {
  unsigned __int128 total = 0;
  for (std::int64_t s : steps) total += static_cast<unsigned __int128>(s * s);
  return total;
}

bool within(const Steps& steps, const CertifiedGrid& grid) {
  return squares(steps) <= static_cast<unsigned __int128>(grid.sensitivity) * static_cast<unsigned __int128>(grid.sensitivity);
}

// The sum in whole steps, read through a release without noise: float32 holds integers up to 2^24 steps, enough for C = 1.
std::vector<float> released(CertifiedPass& pass, std::size_t size, double noise_multiplier = 0.0) {
  Csprng rng;
  std::vector<float> out(size);
  const double scale = 1 / pass.grid().grid;
  Noise::add(pass.finish(), noise_multiplier, scale, rng, {out});
  return out;
}

TEST(CertifiedGrid, IsPublicAndTight) {
  for (double c : {1.0, 1.5, 0.1, 1.9999999, 3e-19, 1e19}) {
    const CertifiedGrid grid(c);
    EXPECT_EQ(std::exp2(std::ilogb(grid.grid)), grid.grid);
    EXPECT_LE(static_cast<double>(grid.sensitivity) * grid.grid, c);
    EXPECT_GT(static_cast<double>(grid.sensitivity + 1) * grid.grid, c);
    EXPECT_GE(grid.sensitivity, 1 << 24);
    EXPECT_LT(grid.sensitivity, 1 << 25);
  }
  for (double c : {0.0, -1.0, 1e-40, 1e40, std::nan(""), HUGE_VAL}) EXPECT_THROW(CertifiedGrid{c}, InvalidArgument) << c;
}

TEST(CertifiedPass, RoundsTowardsZeroWithinTheBound) {
  const double step = CertifiedGrid(1.0).grid;
  const auto f = [&](double steps) { return static_cast<float>(steps * step); };
  EXPECT_EQ(contribution({f(3.75), f(-3.75), f(0.99), -0.0f, kTiny}, 1.0), (Steps{3, -3, 0, 0, 0}));
  EXPECT_EQ(contribution({1.0f}, 1.0), (Steps{1 << 24}));
  EXPECT_EQ(contribution({-1.0f}, 1.0), (Steps{-(1 << 24)}));
}

TEST(CertifiedPass, LongGradientsAreScaledByLittleMoreThanNeeded) {
  InsecureSeed seed(1);
  for (double c : {0.1, 1.0, 7.0}) {
    std::vector<float> gradient(1000);
    for (float& g : gradient) g = static_cast<float>(static_cast<double>(seed.stream().next_u64()) * 0x1p-60 - 8);
    const Steps steps = contribution(gradient, c);
    const CertifiedGrid grid(c);
    ASSERT_TRUE(within(steps, grid));
    EXPECT_GT(std::sqrt(static_cast<double>(squares(steps))), static_cast<double>(grid.sensitivity) * (1 - 0x1p-9));
    double along = 0, length = 0;
    for (std::size_t i = 0; i < gradient.size(); ++i) {
      along += static_cast<double>(steps[i]) * gradient[i];
      length += static_cast<double>(gradient[i]) * gradient[i];
    }
    double worst = 0;
    for (std::size_t i = 0; i < gradient.size(); ++i) worst = std::max(worst, std::abs(steps[i] - gradient[i] * along / length));
    EXPECT_LT(worst, 2);
  }
}

TEST(CertifiedPass, WhatIsNotFiniteAddsNothing) {
  for (float wrong : {kNan, -kNan, kInf, -kInf}) {
    for (std::size_t at : {0u, 5u, 9u}) {
      std::vector<float> gradient(10, 0.1f);
      gradient[at] = wrong;
      EXPECT_EQ(contribution(gradient, 1.0), Steps(10));
    }
  }
  EXPECT_EQ(contribution({kInf, -kInf}, 1.0), Steps(2));
  EXPECT_EQ(contribution({}, 1.0), Steps());
}

// A search for a gradient that adds more than the bound. Half of the gradients are built to be hard: norms within a few units
// of the last place of C, coordinates at and next to whole steps, all bit patterns, extreme magnitudes mixed; the other half
// climbs from the hardest found, changing one coordinate by one bit. HUSHGRAD_ADVERSARIAL_GRADIENTS sets their number.
class Adversary {
 public:
  explicit Adversary(double c) : c_(c), grid_(c) {}

  std::vector<float> next() {
    if (rng_.next_u64() % 2 == 0 || hardest_.empty()) return fresh();
    std::vector<float> gradient = hardest_;
    float& g = gradient[rng_.next_u64() % gradient.size()];
    g = std::bit_cast<float>(std::bit_cast<std::uint32_t>(g) ^ (1u << rng_.next_u64() % 32));
    return gradient;
  }
  // How much of the bound it used; the hardest is kept.
  void learn(const std::vector<float>& gradient, const Steps& steps) {
    const double used = std::sqrt(static_cast<double>(squares(steps))) / static_cast<double>(grid_.sensitivity);
    if (used < most_) return;
    most_ = used;
    hardest_ = gradient;
  }
  double most() const { return most_; }

 private:
  double unit() { return static_cast<double>(rng_.next_u64()) * 0x1p-63 - 1; }

  std::vector<float> fresh() {
    constexpr float special[] = {kNan, kInf, -kInf, kTiny, -kTiny, kHuge, -kHuge, 0.0f, -0.0f, 0x1p-126f, 0x1p-127f, 1.0f};
    std::vector<float> gradient(1 + rng_.next_u64() % (rng_.next_u64() % 50 == 0 ? 3000 : 40));
    const std::uint64_t kind = rng_.next_u64() % 6;
    for (float& g : gradient) {
      if (kind == 0) g = std::bit_cast<float>(static_cast<std::uint32_t>(rng_.next_u64()));
      if (kind == 1) g = special[rng_.next_u64() % std::size(special)];
      if (kind == 2) g = static_cast<float>(grid_.grid * std::floor(unit() * 1e7)) ;
      if (kind == 3) g = static_cast<float>(std::ldexp(unit(), static_cast<int>(rng_.next_u64() % 270) - 140));
      if (kind >= 4) g = static_cast<float>(unit());
    }
    if (kind < 4) return gradient;
    double norm = 0;
    for (float g : gradient) norm += static_cast<double>(g) * g;
    const double target = c_ * (1 + static_cast<double>(static_cast<int>(rng_.next_u64() % 9) - 4) * 0x1p-24);
    for (float& g : gradient) {
      g = static_cast<float>(g * (target / std::sqrt(norm)));
      if (kind == 5) g = std::nextafter(g, g * 2);
    }
    return gradient;
  }

  double c_;
  CertifiedGrid grid_;
  Csprng rng_;
  std::vector<float> hardest_;
  double most_ = 0;
};

TEST(CertifiedPass, NoGradientOfAMillionAddsMoreThanTheBound) {
  const char* asked = std::getenv("HUSHGRAD_ADVERSARIAL_GRADIENTS");
  const std::int64_t gradients = asked ? std::strtoll(asked, nullptr, 10) : 1'000'000;
  const std::vector<double> bounds{1.0, 0.1, 1.5, std::nextafter(2.0, 0.0), 0x1p-64, 3e18};
  std::int64_t violations = 0;
  for (double c : bounds) {
    Adversary adversary(c);
    const CertifiedGrid grid(c);
    for (std::int64_t i = 0; i < gradients / static_cast<std::int64_t>(bounds.size()) + 1; ++i) {
      const std::vector<float> gradient = adversary.next();
      const Steps steps = contribution(gradient, c);
      violations += within(steps, grid) ? 0 : 1;
      adversary.learn(gradient, steps);
    }
    std::printf("[ search   ] max_grad_norm %-12g most used %.9f of the bound\n", c, adversary.most());
    EXPECT_GT(adversary.most(), 0.999999);  // the search does come near
  }
  std::printf("[ search   ] %lld gradients, %lld violations\n", static_cast<long long>(gradients), static_cast<long long>(violations));
  EXPECT_EQ(violations, 0);
}

// Adding a sample moves the sum by that sample's own contribution, whatever else is in the batch.
TEST(CertifiedPass, OneSampleMovesTheSumByItsOwnContribution) {
  const std::vector<std::vector<float>> others{{1e30f, -1e30f, 3.0f}, {kNan, 1.0f, 1.0f}, {0.6f, 0.6f, -0.6f}, {kTiny, 0.3f, kHuge}};
  const std::vector<float> sample{0.25f, -1e-3f, 0.1f};
  CertifiedPass pass(1.0, {3});
  for (const auto& other : others) pass.add({other});
  const std::vector<float> without = released(pass, 3);
  for (const auto& other : others) {
    pass.add({other});
    if (&other == &others[1]) pass.add({sample});
  }
  const std::vector<float> with = released(pass, 3);
  const Steps own = contribution(sample, 1.0);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(with[i] - without[i], static_cast<float>(own[i])) << i;
}

TEST(CertifiedPass, EmptyBatchesDiscardsAndParts) {
  CertifiedPass pass(1.0, {2, 0, 1});
  const std::vector<float> a{0.5f, 0.25f}, c{0.125f};
  pass.add({a, {}, c});
  pass.discard();
  Csprng rng;
  std::vector<float> x(2, 9.0f), z(1, 9.0f);
  Noise::add(pass.finish(), 0.0, 1.0, rng, {x, SumPart(), z});
  EXPECT_EQ(x, std::vector<float>(2));
  pass.add({a, {}, c});
  Noise::add(pass.finish(), 0.0, 2.0, rng, {x, SumPart(), z});
  EXPECT_EQ(x, (std::vector<float>{1.0f, 0.5f}));
  EXPECT_EQ(z, (std::vector<float>{0.25f}));
  EXPECT_THROW(pass.add({a, c}), InvalidArgument);
  EXPECT_THROW(pass.add({c, {}, a}), InvalidArgument);
  EXPECT_THROW(Noise::add(pass.finish(), 0.0, 1.0, rng, {x}), InvalidArgument);
  EXPECT_THROW(Noise::add(pass.finish(), -1.0, 1.0, rng, {x, SumPart(), z}), InvalidArgument);
  EXPECT_THROW(Noise::add(pass.finish(), 1.0, 0.0, rng, {x, SumPart(), z}), InvalidArgument);
}

// Deviation noise_multiplier * C on the released sum, whole steps only. False alarm 1e-6.
TEST(CertifiedPass, NoiseHasTheChargedDeviation) {
  for (double c : {1.0, 1.9}) {
    const std::size_t d = 100'000;
    CertifiedPass pass(c, {d});
    const CertifiedGrid grid = pass.grid();
    Csprng rng;
    std::vector<float> out(d);
    Noise::add(pass.finish(), 0.7, 1.0, rng, {out});
    long double square = 0;
    for (float v : out) {
      square += static_cast<long double>(v) * v;
      ASSERT_EQ(v / grid.grid, std::floor(v / grid.grid));
    }
    EXPECT_LT(std::abs(static_cast<double>(square) / static_cast<double>(d) / (0.49 * c * c) - 1),
              testing::kNormalLimit * std::sqrt(2.0 / static_cast<double>(d)) + 1e-6);
  }
}

TEST(CertifiedPass, SumsOfManySamplesAreExact) {
  CertifiedPass pass(1.0, {1});
  const std::vector<float> up{1.0f}, down{-1.0f}, little{static_cast<float>(pass.grid().grid)};
  for (int i = 0; i < 1000; ++i) pass.add({up});
  pass.add({little});
  for (int i = 0; i < 1000; ++i) pass.add({down});
  EXPECT_EQ(released(pass, 1), (std::vector<float>{1.0f}));  // a float32 sum would have lost it
}

}  // namespace
}  // namespace hushgrad
