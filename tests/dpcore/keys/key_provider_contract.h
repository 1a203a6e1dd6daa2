// What every KeyProvider keeps, as tests. Instantiate with a Maker:
//   struct Maker { static std::string unavailable();     // why the provider cannot be tested here, or empty
//                  std::unique_ptr<KeyProvider> open();  // with an active key of datasets "a" and "b"
//                  void suspend(const std::string& dataset);  void destroy(const std::string& dataset); };
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "dpcore/error.h"
#include "dpcore/keys/bytes.h"
#include "dpcore/keys/key_provider.h"
#include "dpcore/keys/seal_testing.h"

namespace hushgrad::seal_testing {

template <typename Maker>
class KeyProviderContract : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string why = Maker::unavailable(); !why.empty()) GTEST_SKIP() << "SKIPPED: " << why;
    maker = std::make_unique<Maker>();
    provider = maker->open();
  }
  std::unique_ptr<Maker> maker;
  std::unique_ptr<KeyProvider> provider;
  const Bytes data_key = hex("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f");
};
TYPED_TEST_SUITE_P(KeyProviderContract);

TYPED_TEST_P(KeyProviderContract, ReturnsWhatItWrapped) {
  const WrappedKey wrapped = this->provider->wrap("a", this->data_key);
  EXPECT_TRUE(is_hex(wrapped.key_id, 16));
  EXPECT_GE(wrapped.bytes.size(), 40u);
  EXPECT_LE(wrapped.bytes.size(), WrappedKey::kMaxBytes);
  EXPECT_EQ(to_hex(this->provider->unwrap(wrapped).bytes()), to_hex(this->data_key));
  EXPECT_EQ(this->provider->dataset_of(wrapped.key_id), "a");
  EXPECT_EQ(to_hex(this->maker->open()->unwrap(wrapped).bytes()), to_hex(this->data_key));
}

TYPED_TEST_P(KeyProviderContract, KnowsItsKeys) {
  EXPECT_TRUE(this->provider->has_key("a"));
  EXPECT_FALSE(this->provider->has_key("A"));
  const auto keys = this->provider->list();
  ASSERT_EQ(keys.size(), 2u);
  EXPECT_EQ(keys[0].state, "active");
  EXPECT_EQ(this->provider->key(keys[1].id).dataset, keys[1].dataset);
  EXPECT_THROW(this->provider->key(std::string(32, '0')), KeyError);
  EXPECT_FALSE(this->provider->name().empty());
}

TYPED_TEST_P(KeyProviderContract, UsesTheNamedKeyOnly) {
  WrappedKey wrapped = this->provider->wrap("a", this->data_key);
  const WrappedKey other = this->provider->wrap("b", this->data_key);
  wrapped.key_id = other.key_id;
  EXPECT_THROW(this->provider->unwrap(wrapped), SealError);
  wrapped.key_id = std::string(32, '0');
  EXPECT_THROW(this->provider->unwrap(wrapped), KeyError);
  EXPECT_THROW(this->provider->wrap("unknown", this->data_key), KeyError);
}

TYPED_TEST_P(KeyProviderContract, RefusesEveryAlteration) {
  const WrappedKey good = this->provider->wrap("a", this->data_key);
  for (std::size_t i = 0; i < good.bytes.size(); i += 5) {
    WrappedKey bad = good;
    bad.bytes[i] ^= std::byte{1};
    EXPECT_THROW(this->provider->unwrap(bad), SealError) << i;
  }
  for (std::size_t size : {std::size_t{0}, std::size_t{8}, good.bytes.size() - 1}) {
    WrappedKey bad = good;
    bad.bytes.resize(size);
    EXPECT_THROW(this->provider->unwrap(bad), SealError) << size;
  }
  for (std::size_t size : {0u, 16u, 31u, 33u}) {
    EXPECT_THROW(this->provider->wrap("a", Bytes(size)), InvalidArgument) << size;
  }
}

TYPED_TEST_P(KeyProviderContract, FollowsStatesInProcessesThatRun) {
  const WrappedKey a = this->provider->wrap("a", this->data_key), b = this->provider->wrap("b", this->data_key);
  this->maker->suspend("a");
  EXPECT_THROW(this->provider->wrap("a", this->data_key), KeyError);
  EXPECT_THROW(this->provider->unwrap(a), KeyError);
  EXPECT_EQ(to_hex(this->provider->unwrap(b).bytes()), to_hex(this->data_key));
  this->maker->destroy("b");
  EXPECT_THROW(this->provider->wrap("b", this->data_key), KeyError);
  EXPECT_THROW(this->provider->unwrap(b), KeyError);
  EXPECT_FALSE(this->provider->has_key("a") || this->provider->has_key("b"));
}

TYPED_TEST_P(KeyProviderContract, RefusesWhatANewerOneWrapped) {
  WrappedKey wrapped = this->provider->wrap("a", this->data_key);
  if (this->provider->generation() == 0) GTEST_SKIP() << "this provider keeps no generations";
  wrapped.generation = this->provider->generation() + 1;
  EXPECT_THROW(this->provider->unwrap(wrapped), KeyError);
}

TYPED_TEST_P(KeyProviderContract, ServesManyThreads) {
  std::vector<std::thread> threads;
  std::atomic<int> good{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 4; ++i) {
        Bytes key = this->data_key;
        key[0] = static_cast<std::byte>(16 * t + i);
        if (to_hex(this->provider->unwrap(this->provider->wrap("a", key)).bytes()) == to_hex(key)) ++good;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(good, 16);
}

REGISTER_TYPED_TEST_SUITE_P(KeyProviderContract, ReturnsWhatItWrapped, KnowsItsKeys, UsesTheNamedKeyOnly,
                            RefusesEveryAlteration, FollowsStatesInProcessesThatRun, RefusesWhatANewerOneWrapped,
                            ServesManyThreads);

}  // namespace hushgrad::seal_testing
