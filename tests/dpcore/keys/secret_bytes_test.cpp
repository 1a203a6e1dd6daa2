#include "dpcore/keys/secret_bytes.h"

#include <algorithm>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <openssl/crypto.h>

namespace hushgrad {
namespace {

TEST(SecretBytes, StartsZeroAndTakesAnySize) {
  EXPECT_EQ(SecretBytes(0).size(), 0u);
  for (std::size_t size : {1u, 32u, 4096u, 4097u, 1u << 20}) {
    const SecretBytes secret(size);
    ASSERT_EQ(secret.size(), size);
    EXPECT_TRUE(std::all_of(secret.bytes().begin(), secret.bytes().end(),
                            [](std::byte b) { return b == std::byte{0}; }));
  }
}

// Two draws of 32 bytes agree with probability 2^-256.
TEST(SecretBytes, RandomDiffersEachTime) {
  const SecretBytes a = SecretBytes::random(32), b = SecretBytes::random(32);
  EXPECT_FALSE(std::equal(a.bytes().begin(), a.bytes().end(), b.bytes().begin()));
  EXPECT_EQ(SecretBytes::random(0).size(), 0u);
}

TEST(SecretBytes, MovesWithoutCopy) {
  SecretBytes a = SecretBytes::random(32);
  const std::byte* where = a.bytes().data();
  SecretBytes b = std::move(a);
  EXPECT_EQ(b.bytes().data(), where);
  EXPECT_EQ(a.size(), 0u);
  SecretBytes c(5);
  c = std::move(b);
  EXPECT_EQ(c.bytes().data(), where);
  EXPECT_EQ(c.size(), 32u);
}

TEST(SecretBytes, LiesInTheSecureHeapAndIsWipedThere) {
  if (!CRYPTO_secure_malloc_initialized()) SecretBytes starts_the_heap(1);
  if (!CRYPTO_secure_malloc_initialized()) GTEST_SKIP() << "SKIPPED: this OpenSSL has no secure heap";
  const std::byte* where;
  {
    SecretBytes secret(256);
    where = secret.bytes().data();
    ASSERT_TRUE(CRYPTO_secure_allocated(where));
    std::fill(secret.bytes().begin(), secret.bytes().end(), std::byte{0xA5});
  }
  // The heap stays mapped; its free list uses the first bytes of a free block.
  EXPECT_TRUE(std::all_of(where + 32, where + 256, [](std::byte b) { return b == std::byte{0}; }));
}

TEST(SecretBytes, OutlivesAFullSecureHeap) {
  std::vector<SecretBytes> many;
  for (int i = 0; i < 100; ++i) many.push_back(SecretBytes::random(4096));
  EXPECT_EQ(many.back().size(), 4096u);
}

}  // namespace
}  // namespace hushgrad
