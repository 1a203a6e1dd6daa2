#include "dpcore/random/aes_ctr.h"

#include <gtest/gtest.h>

#include <vector>

#include "dpcore/random/hex.h"

namespace hushgrad {
namespace {

using testing::from_hex;
using testing::to_hex;

// NIST SP 800-38A, F.5.5 CTR-AES256.Encrypt.
const auto kKey = from_hex<32>("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4");
const auto kCounter = from_hex<16>("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff");
const auto kPlain = from_hex<64>(
    "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
    "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710");
const auto kCipher = from_hex<64>(
    "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5"
    "2b0930daa23de94ce87017ba2d84988ddfc9c58db67aada613c2dd08457941a6");

std::array<std::byte, 64> known_stream() {
  std::array<std::byte, 64> stream;
  for (std::size_t i = 0; i < stream.size(); ++i) stream[i] = kPlain[i] ^ kCipher[i];
  return stream;
}

TEST(AesCtr, KnownAnswerOfSp80038a) {
  std::array<std::byte, 64> out;
  AesCtr(kKey, kCounter).fill(out);
  EXPECT_EQ(to_hex(out), to_hex(known_stream()));
}

TEST(AesCtr, OddReadsContinueTheStream) {
  std::array<std::byte, 64> out;
  AesCtr stream(kKey, kCounter);
  std::size_t at = 0;
  for (std::size_t size : {1, 0, 15, 17, 30, 1}) {
    stream.fill(std::span(out).subspan(at, size));
    at += size;
  }
  ASSERT_EQ(at, out.size());
  EXPECT_EQ(to_hex(out), to_hex(known_stream()));
}

TEST(AesCtr, SeekStartsOverEvenInsideABlock) {
  std::array<std::byte, 64> out;
  AesCtr stream(kKey, kCounter);
  stream.fill(std::span(out).first(5));
  stream.seek(kCounter);
  stream.fill(out);
  EXPECT_EQ(to_hex(out), to_hex(known_stream()));
}

TEST(AesCtr, CounterCarriesThroughAllOfItsBytes) {
  std::array<std::byte, 32> across;
  AesCtr(kKey, from_hex<16>("00000000000000ffffffffffffffffff")).fill(across);
  std::array<std::byte, 16> after;
  AesCtr(kKey, from_hex<16>("00000000000001000000000000000000")).fill(after);
  EXPECT_EQ(to_hex(std::span(across).last(16)), to_hex(after));
}

TEST(AesCtr, LongReadsAreTheSameStream) {
  std::vector<std::byte> whole(100'003), pieces(100'003);
  AesCtr(kKey, kCounter).fill(whole);
  AesCtr stream(kKey, kCounter);
  for (std::size_t at = 0; at < pieces.size(); at += 997) {
    stream.fill(std::span(pieces).subspan(at, std::min<std::size_t>(997, pieces.size() - at)));
  }
  EXPECT_TRUE(whole == pieces);
}

TEST(Wipe, ClearsEveryByte) {
  std::vector<std::byte> secret(1000, std::byte{0xa5});
  wipe(secret);
  EXPECT_EQ(secret, std::vector<std::byte>(1000));
}

}  // namespace
}  // namespace hushgrad
