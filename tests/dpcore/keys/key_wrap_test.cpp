#include "dpcore/keys/key_wrap.h"

#include "dpcore/error.h"
#include "dpcore/keys/seal_testing.h"

namespace hushgrad {
namespace {

using namespace seal_testing;

// 128- and 192-bit keys (160 tests) are not offered and are the only ones left out.
TEST(KeyWrap, AgreesWithWycheproof) {
  SKIP_WITHOUT_VECTORS();
  int run = 0, left_out = 0;
  const auto published = load_vectors("wycheproof/aes_kwp_test.json");
  for (const auto& group : published["testGroups"]) {
    for (const auto& test : group["tests"]) {
      SCOPED_TRACE(test["tcId"].get<int>());
      const Bytes kek = hex(test["key"]), key = hex(test["msg"]), wrapped = hex(test["ct"]);
      if (kek.size() != 32) {
        ++left_out;
        continue;
      }
      ++run;
      const auto unwrapped = aes256_kwp_unwrap(kek, wrapped);
      ASSERT_EQ(unwrapped.has_value(), test["result"] == "valid");
      if (!unwrapped) continue;
      EXPECT_EQ(to_hex(unwrapped->bytes()), to_hex(key));
      EXPECT_EQ(to_hex(aes256_kwp_wrap(kek, key)), to_hex(wrapped));
    }
  }
  EXPECT_EQ(run, 94);
  EXPECT_EQ(left_out, 160);
}

TEST(KeyWrap, AnyFlippedBitAndAnyOtherKeyIsRefused) {
  const Bytes kek = bytes_of("0123456789abcdef0123456789abcdef");
  const Bytes wrapped = aes256_kwp_wrap(kek, bytes_of("a data key of thirty-two bytes.."));
  ASSERT_EQ(wrapped.size(), 40u);
  ASSERT_TRUE(aes256_kwp_unwrap(kek, wrapped));
  for (std::size_t bit = 0; bit < 8 * wrapped.size(); ++bit) {
    Bytes altered = wrapped;
    altered[bit / 8] ^= std::byte{1} << (bit % 8);
    EXPECT_FALSE(aes256_kwp_unwrap(kek, altered)) << bit;
  }
  for (std::size_t bit = 0; bit < 8 * kek.size(); ++bit) {
    Bytes other = kek;
    other[bit / 8] ^= std::byte{1} << (bit % 8);
    EXPECT_FALSE(aes256_kwp_unwrap(other, wrapped)) << bit;
  }
  for (std::size_t size = 0; size < wrapped.size(); ++size) {
    EXPECT_FALSE(aes256_kwp_unwrap(kek, std::span(wrapped).first(size))) << size;
  }
}

TEST(KeyWrap, RefusesOtherLengths) {
  const Bytes kek(32);
  EXPECT_THROW(aes256_kwp_wrap(Bytes(31), Bytes(32)), InvalidArgument);
  EXPECT_THROW(aes256_kwp_unwrap(Bytes(33), Bytes(40)), InvalidArgument);
  EXPECT_THROW(aes256_kwp_wrap(kek, Bytes()), InvalidArgument);
  EXPECT_THROW(aes256_kwp_wrap(kek, Bytes(4097)), InvalidArgument);
  EXPECT_EQ(aes256_kwp_unwrap(kek, aes256_kwp_wrap(kek, Bytes(4096)))->size(), 4096u);
  EXPECT_FALSE(aes256_kwp_unwrap(kek, Bytes(1 << 20)));
}

}  // namespace
}  // namespace hushgrad
