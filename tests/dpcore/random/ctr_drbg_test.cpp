#include "dpcore/random/ctr_drbg.h"

#include <gtest/gtest.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/rand.h>

#include <vector>

#include "dpcore/error.h"
#include "dpcore/random/hex.h"

namespace hushgrad {
namespace {

using testing::to_hex;
using Seed = std::array<std::byte, CtrDrbg::kEntropyBytes>;

Seed seed_of(unsigned start) {
  Seed seed;
  for (std::size_t i = 0; i < seed.size(); ++i) seed[i] = static_cast<std::byte>(start + 37 * i);
  return seed;
}

// OpenSSL's own CTR_DRBG, written independently, on entropy that the test chooses.
class OpensslDrbg {
 public:
  explicit OpensslDrbg(const Seed& entropy) {
    source_ = make("TEST-RAND", nullptr);
    drbg_ = make("CTR-DRBG", source_);
    give(entropy);
    int use_df = 0;
    char cipher[] = "AES-256-CTR";
    const OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string(OSSL_DRBG_PARAM_CIPHER, cipher, 0),
                                 OSSL_PARAM_construct_int(OSSL_DRBG_PARAM_USE_DF, &use_df),
                                 OSSL_PARAM_construct_end()};
    const unsigned char empty = 0;  // a null pointer would ask for OpenSSL's own personalization string
    EXPECT_EQ(EVP_RAND_instantiate(drbg_, 256, 0, &empty, 0, params), 1);
  }
  ~OpensslDrbg() {
    EVP_RAND_CTX_free(drbg_);
    EVP_RAND_CTX_free(source_);
  }

  std::vector<std::byte> generate(std::size_t size) {
    std::vector<std::byte> out(size);
    EXPECT_EQ(
        EVP_RAND_generate(drbg_, reinterpret_cast<unsigned char*>(out.data()), size, 256, 0, nullptr, 0), 1);
    return out;
  }
  void reseed(const Seed& entropy) {
    give(entropy);
    EXPECT_EQ(EVP_RAND_reseed(drbg_, 0, nullptr, 0, nullptr, 0), 1);
  }

 private:
  static EVP_RAND_CTX* make(const char* name, EVP_RAND_CTX* parent) {
    EVP_RAND* kind = EVP_RAND_fetch(nullptr, name, nullptr);
    EVP_RAND_CTX* made = EVP_RAND_CTX_new(kind, parent);
    EVP_RAND_free(kind);
    return made;
  }
  void give(const Seed& entropy) {
    Seed copy = entropy;
    unsigned strength = 256;
    const OSSL_PARAM params[] = {
        OSSL_PARAM_construct_octet_string(OSSL_RAND_PARAM_TEST_ENTROPY, copy.data(), copy.size()),
        OSSL_PARAM_construct_uint(OSSL_RAND_PARAM_STRENGTH, &strength), OSSL_PARAM_construct_end()};
    EVP_RAND_uninstantiate(source_);
    EXPECT_EQ(EVP_RAND_instantiate(source_, 256, 0, nullptr, 0, params), 1);
  }

  EVP_RAND_CTX* source_ = nullptr;
  EVP_RAND_CTX* drbg_ = nullptr;
};

TEST(CtrDrbg, AgreesWithOpensslOverRequestsAndReseeds) {
  CtrDrbg ours(seed_of(1));
  OpensslDrbg theirs(seed_of(1));
  for (std::size_t size : {16u, 1u, 17u, 48u, 1000u, 65536u}) {
    std::vector<std::byte> out(size);
    ours.generate(out);
    EXPECT_TRUE(out == theirs.generate(size)) << size;
  }
  ours.reseed(seed_of(99));
  theirs.reseed(seed_of(99));
  std::vector<std::byte> out(100);
  ours.generate(out);
  EXPECT_EQ(to_hex(out), to_hex(theirs.generate(100)));
}

TEST(CtrDrbg, RequestLimitIsKept) {
  CtrDrbg drbg(seed_of(1));
  std::vector<std::byte> out(CtrDrbg::kMaxRequestBytes + 1);
  EXPECT_THROW(drbg.generate(out), InvalidArgument);
}

}  // namespace
}  // namespace hushgrad
