#include "dpcore/noise/exact_gaussian.h"

#include <gtest/gtest.h>

#include <deque>
#include <limits>

#include "dpcore/error.h"
#include "dpcore/random/statistics.h"
#include "dpcore/random/word_stream.h"

namespace hushgrad {
namespace {

constexpr std::uint64_t kMost = ~std::uint64_t{0};

struct Script {
  std::deque<std::uint64_t> words;
  std::uint64_t operator()() {
    const std::uint64_t word = words.at(0);
    words.pop_front();
    return word;
  }
};

// The words that make |X| = sigma * 0.(digits): sign, no integer part, accepted at once.
Script of_digits(std::uint64_t first, std::initializer_list<std::uint64_t> further) {
  Script script{{0, kMost >> 1, kMost, kMost, first}};
  script.words.insert(script.words.end(), further);
  return script;
}

// 3 x = 1/2 at x = 1/6 = 0.(2aaa...)(aaaa...)...: only further digits tell 0 from 1.
TEST(ExactGaussian, RoundsByAsManyDigitsAsItTakes) {
  const ExactGaussian gaussian(3.0);
  const std::uint64_t sixth = 0x2aaaaaaaaaaaaaaau, on = 0xaaaaaaaaaaaaaaaau;
  const auto drawn = [&](Script script) {
    const std::int64_t n = gaussian.draw(script);
    EXPECT_TRUE(script.words.empty());
    return n;
  };
  EXPECT_EQ(drawn(of_digits(sixth - 1, {})), 0);
  EXPECT_EQ(drawn(of_digits(sixth + 1, {})), 1);
  EXPECT_EQ(drawn(of_digits(sixth, {on - 1})), 0);
  EXPECT_EQ(drawn(of_digits(sixth, {on + 1})), 1);
  EXPECT_EQ(drawn(of_digits(sixth, {on, on, 0})), 0);
  EXPECT_EQ(drawn(of_digits(sixth, {on, on, kMost})), 1);
}

TEST(ExactGaussian, AStreamThatRepeatsItselfIsAnError) {
  Script stuck;
  stuck.words.assign(100'000, 0);
  EXPECT_THROW(ExactGaussian(1.0).draw(stuck), InvalidState);
}

TEST(ExactGaussian, RefusesDeviationsOutsideItsDomain) {
  for (double sigma : {0.0, -1.0, 0x1p-10, 0x1.1p46, std::nan(""), std::numeric_limits<double>::infinity()}) {
    EXPECT_THROW(ExactGaussian{sigma}, InvalidArgument) << sigma;
  }
}

// exp(-1/2), and exp(-x (2k + x) / (2k + 2)) at x given by its digits. False alarm 1e-6 each.
TEST(ExactGaussian, ItsCoinsAreFairlyBiased) {
  Csprng rng;
  WordStream words(rng);
  constexpr int tosses = 400'000;
  const auto expect = [&](double probability, auto&& toss) {
    int heads = 0;
    for (int i = 0; i < tosses; ++i) heads += toss() ? 1 : 0;
    EXPECT_LT(std::abs(heads - tosses * probability) / std::sqrt(tosses * probability * (1 - probability)), testing::kNormalLimit)
        << probability;
  };
  expect(std::exp(-0.5), [&] { return internal::exp_minus_half(words); });
  for (std::uint64_t k : {0u, 1u, 4u}) {
    for (double x : {0.125, 0.5, 0.96875}) {
      const double exponent = x * (2.0 * static_cast<double>(k) + x) / (2.0 * static_cast<double>(k) + 2.0);
      expect(std::exp(-exponent), [&] {
        internal::LazyUniform uniform;
        Script digits{{static_cast<std::uint64_t>(x * 0x1p64)}};
        uniform.digit(digits, 0);
        return internal::exp_minus_step(words, k, uniform);
      });
    }
  }
}

}  // namespace
}  // namespace hushgrad
