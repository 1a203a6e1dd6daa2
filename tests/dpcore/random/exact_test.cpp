#include "dpcore/random/exact.h"

#include <gtest/gtest.h>

#include <deque>
#include <vector>

#include "dpcore/random/csprng.h"
#include "dpcore/random/statistics.h"
#include "dpcore/random/word_stream.h"

namespace hushgrad {
namespace {

struct Given {
  std::deque<std::uint64_t> words;
  std::uint64_t operator()() {
    const std::uint64_t word = words.at(0);
    words.pop_front();
    return word;
  }
};

TEST(Bernoulli, ComparesDigitByDigit) {
  const std::uint64_t third = 0x5555555555555555u;
  const auto decided = [](std::deque<std::uint64_t> words, std::uint64_t n, std::uint64_t d) {
    Given given{std::move(words)};
    const bool taken = bernoulli(given, n, d);
    EXPECT_TRUE(given.words.empty());
    return taken;
  };
  EXPECT_TRUE(decided({third - 1}, 1, 3));
  EXPECT_FALSE(decided({third + 1}, 1, 3));
  EXPECT_TRUE(decided({third, third, third - 1}, 1, 3));
  EXPECT_FALSE(decided({third, third, third + 1}, 1, 3));
  EXPECT_TRUE(decided({0x7fffffffffffffffu}, 1, 2));
  EXPECT_FALSE(decided({0x8000000000000000u}, 1, 2));  // exactly one half is not below it
  EXPECT_TRUE(decided({}, 5, 5));
  EXPECT_FALSE(decided({}, 0, 5));
}

TEST(UniformBelow, RejectsExactlyTheSurplusWords) {
  // 2^64 = 3 * 0x5555555555555555 + 1: one word too many, the one whose product ends in zero.
  Given given{{0, 1, 0xffffffffffffffffu}};
  EXPECT_EQ(uniform_below(given, 3), 0u);
  EXPECT_EQ(given.words.size(), 1u);
  EXPECT_EQ(uniform_below(given, 3), 2u);
  Given power{{0, ~std::uint64_t{0}}};
  EXPECT_EQ(uniform_below(power, 1u << 20), 0u);
  EXPECT_EQ(uniform_below(power, 1u << 20), (1u << 20) - 1);
}

TEST(UniformBelow, IsUniform) {
  Csprng rng;
  WordStream words(rng);
  for (std::uint64_t bound : {1u, 2u, 7u, 100u}) {
    std::vector<std::int64_t> counts(bound);
    for (int i = 0; i < 100'000; ++i) ++counts[uniform_below(words, bound)];
    const std::vector<long double> masses(bound, 1.0L / static_cast<long double>(bound));
    EXPECT_GT(testing::chi_square_p(counts, masses, 100'000), bound == 1 ? -1 : testing::kFalseAlarm);
  }
  // Above 2^63 every second word or so is rejected: halves must still be even.
  std::vector<std::int64_t> halves(3);
  const std::uint64_t bound = 3 * (std::uint64_t{1} << 62);
  for (int i = 0; i < 100'000; ++i) ++halves[uniform_below(words, bound) >> 62];
  EXPECT_GT(testing::chi_square_p(halves, std::vector<long double>(3, 1.0L / 3), 100'000), testing::kFalseAlarm);
}

TEST(WordStream, IsTheGeneratorsBytes) {
  Csprng rng;
  WordStream words(rng);
  std::uint64_t either = 0, both = ~std::uint64_t{0};
  for (int i = 0; i < 1000; ++i) {
    const std::uint64_t word = words();
    either |= word;
    both &= word;
  }
  EXPECT_EQ(either, ~std::uint64_t{0});
  EXPECT_EQ(both, 0u);
}

}  // namespace
}  // namespace hushgrad
