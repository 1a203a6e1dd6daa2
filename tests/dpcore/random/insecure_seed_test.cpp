#include "dpcore/random/insecure_seed.h"

#include <gtest/gtest.h>

#include <type_traits>

namespace hushgrad {
namespace {

static_assert(!std::is_convertible_v<InsecureSeed&, Csprng&>, "every use is spelled out");
static_assert(!std::is_convertible_v<std::uint64_t, InsecureSeed>);

TEST(InsecureSeed, SameNumberSameStream) {
  InsecureSeed one(7), same(7), other(8), high(7 + (1ull << 63));
  const std::uint64_t value = one.stream().next_u64();
  EXPECT_EQ(value, same.stream().next_u64());
  EXPECT_NE(value, other.stream().next_u64());
  EXPECT_NE(value, high.stream().next_u64());
}

TEST(InsecureSeed, SaysWhatItIs) { EXPECT_TRUE(InsecureSeed(7).stream().insecure()); }

TEST(InsecureSeed, ReseedDoesNotBreakTheRepetition) {
  InsecureSeed one(7), same(7);
  one.stream().reseed();
  std::vector<std::byte> a(3 << 20), b(3 << 20);  // past the reseed interval
  one.stream().fill(a);
  same.stream().fill(b);
  EXPECT_TRUE(a == b);
}

}  // namespace
}  // namespace hushgrad
