#include "dpcore/sampling/geometric.h"

#include <gtest/gtest.h>
#include <openssl/bn.h>

#include <cmath>
#include <deque>
#include <memory>

#include "dpcore/random/csprng.h"
#include "dpcore/random/statistics.h"
#include "dpcore/random/word_stream.h"

namespace hushgrad {
namespace {

using testing::chi_square_p;
using testing::kFalseAlarm;

// Natural numbers of any size, by OpenSSL.
class Natural {
 public:
  Natural(std::uint64_t value = 0) : n_(BN_new()) {  // NOLINT: a number is a number
    BN_set_word(n_.get(), value);
  }
  Natural(const Natural& other) : n_(BN_dup(other.n_.get())) {}
  Natural& operator=(const Natural& other) {
    BN_copy(n_.get(), other.n_.get());
    return *this;
  }
  friend Natural operator*(const Natural& a, const Natural& b) {
    Natural result;
    std::unique_ptr<BN_CTX, void (*)(BN_CTX*)> scratch(BN_CTX_new(), BN_CTX_free);
    BN_mul(result.n_.get(), a.n_.get(), b.n_.get(), scratch.get());
    return result;
  }
  friend Natural operator/(const Natural& a, const Natural& b) {
    Natural result;
    std::unique_ptr<BN_CTX, void (*)(BN_CTX*)> scratch(BN_CTX_new(), BN_CTX_free);
    BN_div(result.n_.get(), nullptr, a.n_.get(), b.n_.get(), scratch.get());
    return result;
  }
  friend Natural operator+(Natural a, std::uint64_t b) {
    BN_add_word(a.n_.get(), b);
    return a;
  }
  friend bool operator<=(const Natural& a, const Natural& b) { return BN_cmp(a.n_.get(), b.n_.get()) <= 0; }
  Natural shifted(int bits) const {
    Natural result;
    BN_lshift(result.n_.get(), n_.get(), bits);
    return result;
  }
  // Digits of base 2^64, most significant first.
  std::deque<std::uint64_t> words(std::size_t count) const {
    std::vector<unsigned char> bytes(8 * count);
    BN_bn2binpad(n_.get(), bytes.data(), static_cast<int>(bytes.size()));
    std::deque<std::uint64_t> result;
    for (std::size_t i = 0; i < count; ++i) {
      std::uint64_t word = 0;
      for (std::size_t j = 0; j < 8; ++j) word = word << 8 | bytes[8 * i + j];
      result.push_back(word);
    }
    return result;
  }

 private:
  struct Free {
    void operator()(BIGNUM* n) const { BN_free(n); }
  };
  std::unique_ptr<BIGNUM, Free> n_;
};

Natural power(std::uint64_t base, std::int64_t exponent) {
  Natural result = 1;
  for (std::int64_t i = 0; i < exponent; ++i) result = result * Natural(base);
  return result;
}

// Words as given, then random ones; remembers what was taken.
struct Script {
  std::deque<std::uint64_t> given;
  Csprng rng;
  std::vector<std::uint64_t> taken;
  std::uint64_t operator()() {
    std::uint64_t word;
    if (given.empty()) {
      word = rng.next_u64();
    } else {
      word = given.front();
      given.pop_front();
    }
    taken.push_back(word);
    return word;
  }
};

// The definition: the largest g <= limit for which U = 0.(words) is below (1 - rate)^g, all digits that may follow included.
std::int64_t definition(const SamplingRate& rate, const std::vector<std::uint64_t>& words, std::int64_t limit) {
  Natural u = 0;
  for (std::uint64_t word : words) u = u.shifted(64) + word;
  const auto d = static_cast<std::uint64_t>(rate.denominator());
  const auto failures = d - static_cast<std::uint64_t>(rate.numerator());
  const int bits = 64 * static_cast<int>(words.size());
  std::int64_t g = 0;
  Natural top = 1, bottom = 1;
  while (g < limit) {
    top = top * Natural(failures);
    bottom = bottom * Natural(d);
    if (!((u + 1) * bottom <= top.shifted(bits))) break;
    ++g;
  }
  return g;
}

TEST(Geometric, IsTheDefinitionOnRandomWords) {
  for (const SamplingRate& rate : {SamplingRate(1, 3), SamplingRate(2, 3), SamplingRate(1, 10), SamplingRate(999, 1000),
                                   SamplingRate(1, 1000), SamplingRate((std::int64_t{1} << 62) - 1, std::int64_t{1} << 62)}) {
    const Geometric geometric(rate);
    for (int i = 0; i < 200; ++i) {
      Script script;
      const std::int64_t limit = i % 2 == 0 ? 40 : 1 + i;
      const std::int64_t drawn = geometric.draw(script, limit);
      EXPECT_EQ(drawn, definition(rate, script.taken, limit));
    }
  }
}

// Words that follow the digits of a power exactly, for up to `agreeing` words: the number must be decided by later ones.
TEST(Geometric, IsTheDefinitionWhereDigitsDoNotDecide) {
  for (const SamplingRate& rate : {SamplingRate(1, 3), SamplingRate(5, 7), SamplingRate(1, 100), SamplingRate(1, 2)}) {
    const auto d = static_cast<std::uint64_t>(rate.denominator());
    const auto failures = d - static_cast<std::uint64_t>(rate.numerator());
    const Geometric geometric(rate);
    for (std::int64_t g : {1, 2, 3, 5, 8, 20}) {
      for (std::size_t agreeing : {1u, 2u, 3u, 5u, 9u}) {
        const Natural digits = power(failures, g).shifted(64 * static_cast<int>(agreeing)) / power(d, g);
        Script script;
        script.given = digits.words(agreeing);
        const std::int64_t drawn = geometric.draw(script, 50);
        EXPECT_EQ(drawn, definition(rate, script.taken, 50));
        EXPECT_TRUE(drawn == g || drawn == g - 1) << drawn << " " << g;
        if (d % 2 != 0) EXPECT_GT(script.taken.size(), agreeing);  // odd: the digits never end
      }
    }
  }
}

TEST(Geometric, AStreamThatNeverDecidesIsAnError) {
  Script script;
  script.given.assign(16, 0xaaaaaaaaaaaaaaaau);  // 2/3
  EXPECT_THROW(Geometric(SamplingRate(1, 3)).draw(script, 10), InvalidState);
}

TEST(Geometric, LimitsAndCertainty) {
  Script script;
  EXPECT_EQ(Geometric(SamplingRate(1, 1)).draw(script, 100), 0);
  EXPECT_EQ(Geometric(SamplingRate(1, 5)).draw(script, 0), 0);
  EXPECT_TRUE(script.taken.empty());
  const Geometric rare(SamplingRate(1, SamplingRate::max_denominator));
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(rare.draw(script, 1000), 1000);  // otherwise with probability 2^-42
  const std::int64_t all = std::int64_t{1} << 62;
  const std::int64_t far = rare.draw(script, all);
  EXPECT_GT(far, all >> 40);
  EXPECT_LE(far, all);
}

// Masses q (1-q)^g; false alarm 1e-6 each.
TEST(Geometric, HasTheGeometricLaw) {
  constexpr std::int64_t draws = 300'000;
  for (const auto& [numerator, denominator, width] : {std::tuple{1, 3, 1}, {1, 50, 10}, {3, 1'000'000, 30'000}}) {
    Csprng rng;
    WordStream words(rng);
    const Geometric geometric(SamplingRate(numerator, denominator));
    const long double q = static_cast<long double>(numerator) / denominator;
    std::vector<std::int64_t> counts(60);
    std::vector<long double> masses(60);
    for (std::int64_t i = 0; i < draws; ++i) {
      const std::int64_t cell = geometric.draw(words, std::int64_t{1} << 40) / width;
      if (cell < 60) ++counts[static_cast<std::size_t>(cell)];
    }
    for (std::size_t i = 0; i < masses.size(); ++i) {
      masses[i] = std::exp(std::log1p(-q) * static_cast<long double>(i * static_cast<std::size_t>(width))) *
                  -std::expm1(std::log1p(-q) * width);
    }
    EXPECT_GT(chi_square_p(counts, masses, draws), kFalseAlarm) << denominator;
  }
}

}  // namespace
}  // namespace hushgrad
