#include "dpcore/random/key_stream.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "dpcore/random/csprng.h"
#include "dpcore/random/hex.h"

namespace hushgrad {
namespace {

using Key = std::array<std::byte, 32>;
using Counter = std::array<std::byte, 16>;

Counter counter_of(std::uint64_t high, std::uint64_t low) {
  Counter counter;
  for (std::size_t i = 0; i < 8; ++i) {
    counter[i] = static_cast<std::byte>(high >> (56 - 8 * i));
    counter[8 + i] = static_cast<std::byte>(low >> (56 - 8 * i));
  }
  return counter;
}

class EveryKeyStream : public ::testing::TestWithParam<KeyStream::Cipher> {};
INSTANTIATE_TEST_SUITE_P(Of, EveryKeyStream, ::testing::ValuesIn(KeyStream::ciphers()), [](const auto& info) {
  return info.param == KeyStream::Cipher::vaes_512 ? "Vaes512" : info.param == KeyStream::Cipher::vaes_256 ? "Vaes256" : "Openssl";
});

// NIST SP 800-38A, F.5.5: the key stream is plain text xor cipher text.
TEST_P(EveryKeyStream, KnownAnswerOfSp80038a) {
  KeyStream stream(testing::from_hex<32>("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4"),
                   testing::from_hex<16>("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"), GetParam());
  std::array<std::byte, 64> out;
  stream.fill(out);
  const auto plain = testing::from_hex<64>(
      "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
      "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710");
  for (std::size_t i = 0; i < out.size(); ++i) out[i] ^= plain[i];
  EXPECT_EQ(testing::to_hex(out),
            "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5"
            "2b0930daa23de94ce87017ba2d84988ddfc9c58db67aada613c2dd08457941a6");
}

// Random keys; counters at random, and where one half carries into the other or both wrap.
TEST_P(EveryKeyStream, IsOpensslsStreamAtEveryCounterAndSize) {
  Csprng rng;
  const std::uint64_t most = ~std::uint64_t{0};
  for (int repeat = 0; repeat < 200; ++repeat) {
    Key key;
    rng.fill(key);
    const std::uint64_t before = rng.next_u64() % 70;
    for (const Counter& counter : {counter_of(rng.next_u64(), rng.next_u64()), counter_of(rng.next_u64(), most - before),
                                   counter_of(most, most - before)}) {
      KeyStream ours(key, counter, GetParam());
      AesCtr theirs(key, counter);
      for (std::size_t size : {rng.next_u64() % 700, rng.next_u64() % 50, rng.next_u64() % 3000, std::uint64_t{0}, std::uint64_t{256}}) {
        std::vector<std::byte> a(size), b(size);
        ours.fill(a);
        theirs.fill(b);
        ASSERT_EQ(a, b) << size;
      }
      ours.seek(counter);
      theirs.seek(counter);
      std::vector<std::byte> a(2000), b(2000);
      ours.fill(a);
      theirs.fill(b);
      ASSERT_EQ(a, b);
    }
  }
}

TEST(KeyStream, TakesTheFirstOfItsCiphers) {
  const auto& ciphers = KeyStream::ciphers();
  EXPECT_EQ(ciphers.back(), KeyStream::Cipher::openssl);
  std::printf("[          ] key stream: %s\n", std::string(KeyStream::name_of(ciphers.front())).c_str());
}

}  // namespace
}  // namespace hushgrad
