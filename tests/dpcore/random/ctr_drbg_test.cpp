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

using testing::from_hex;
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

// NIST CAVP, drbgvectors_no_reseed/CTR_DRBG.rsp, [AES-256 no df], no personalization string, no additional input,
// COUNT = 0 ... 14: instantiate, generate 512 bits, generate 512 bits; the second output is given.
// https://csrc.nist.gov/projects/cryptographic-algorithm-validation-program/random-number-generators
struct Vector {
  const char *entropy, *returned;
};
constexpr Vector kNoReseed[] = {
    {"df5d73faa468649edda33b5cca79b0b05600419ccb7a879ddfec9db32ee494e5531b51de16a30f769262474c73bec010",
     "d1c07cd95af8a7f11012c84ce48bb8cb87189e99d40fccb1771c619bdf82ab22"
     "80b1dc2f2581f39164f7ac0c510494b3a43c41b7db17514c87b107ae793e01c5"},
    {"3b6fb634d35bb386927374f991c1cbc9fafba3a43c432dc411b7b2fa96cfcce8d305e135ff9bc460dbc7ba3990bf8060",
     "083a836fe1cde053164555529409337dc4fec6844594fdf15083ba9d1001eb94"
     "5c3b96a1bcee3990e1e51f85c80e9f4e04de34e57b640f6cae8ed68e99624712"},
    {"0217a8acf2f8e2c4ab7bdcd5a694bca28d038018869dcbe2160d1ce0b4c78ead5592efed98662f2dff87f32f4835c677",
     "aa36779726f52875312507fb084744d4d7f3f9468a5b246ccde316d2ab91879c"
     "2e29f5a0938a3bcd722bb718d01bbfc35831c9e64f5b6410ae908d3061f76c84"},
    {"37d851fb20ab3ba73b1d8d81f323901a55529c26a8f753d32980d6d2aba3da278b907400a19406e255206e1d0858f384",
     "96eabafb45c77967b14a6663a39238306ce58038a3dc0b8aecaf0231c404ecba"
     "50f1ab0a17b1894cf6acb630fe165f8a9d7c5412e1bab4eb4efe9ae84f5b4a03"},
    {"e62eab30b9338593076104ee9c148a6c22f796daedb71bacdda207b19768b5fed5d20c9eea12ed5ab959c143f773cda6",
     "f5ea040c670f83c26ff2c38f66169b572fecc7283e902f0f4b2f6a4440f5b897"
     "0807d58ca01466cec7fb68b4cf952355e780050bf48ad5b20c17c78aa0fc0352"},
    {"6245755cb02ae883911c0d82009035715b2304f78ce2a0d8fa22d47e7e1e394fd9a7a13862ef2393bb3818ec49cb70f2",
     "3cd590a0dfece30940c11ff243d99e552b531ae11b31a454b42ed04f2c77f2e2"
     "f58f9bd1cd0a36480f845256bc82723c2de5c6d15bc8be2040e5ae8b5331516e"},
    {"bc10b0985a1da8d0bcbced029cf52f0fe12b6d6bc500ddffbaf37a2090356cf1aacb1bf30ad948f87f899c544d115716",
     "8575f0f1f959589e2695891dfac56db72b79981c6077de92154c5557c3e89ab7"
     "737827069ecc700de18317b5a1fa38c11d675bbb9ba235f153c4f9899bc4bb8f"},
    {"0398b1bb37f9673a2d88ef418b4cca3d6009950fae93f08095a4960283329ce75312bb21c30d26b0ddfabf296006065c",
     "22816b8c4bcf34f8d54257c217b529cf038b6f6fb1863017a343d50c883696d4"
     "43fa76c259daae46a763382bcc289de55b224f8db99d46838c951b3e18a9fc26"},
    {"4bfa09839da460e5b088411eb312a3c89a858ee88cf3cb2ad4f8f9896bcfcae72fbd28f6bb428811ba34fbe4f8c8f518",
     "46a574ebbd566861757680a5a3a050beca92fa6993ba72bced22bc0a46ed0058"
     "4e61db698e352e31c74af4f5711b0aa1d9d41894ffdb9c8837c38b1b3782e381"},
    {"86d115f1d3a154c50b45562a02c955e307c17febecab4d13e0d5b6c7258b4bfeb91e316ad0f87bbc0ae1d09d4d60d31a",
     "ff0250e026ef966434062c875545bc436605bb5d02877a1bd3fd03ab8752b196"
     "3749ea208df53f6c51826434f5c6e6d991845c6154f6b2000de640d030288965"},
    {"ce4c6c498e5df8b61debfaf1c24c479109c87c7d38782f50bb60877127a5480594428bd7a9fd71fff2fe0d1db3ce6e2f",
     "1389f2a6134235e08e7a0b41c4a1b5fd77bce469fb6845e519ccad385d74649f"
     "2207c84488556741d27d6435437ad088d11f52265b882e47642402d1c0882562"},
    {"c1dad0e376aa2c350e0d89fcd24040992c08c141adc373d4360786a08812d2919329b4f5a5fae4016cb7699b0647edfa",
     "d38991536fb03509531ffae44c7494f05a73030920c2bafd833be1a8c7f6d741"
     "6077d0089bb651b96ad964c26f11b31bb0364b4f5e0dc7e11504054b5110211a"},
    {"75173e81ce87e7c8d0345761ee59a3fd1c555f37f7c236f7e3aaa5f5ddcb8089462e8edbe4e19aec2467684a57716788",
     "58bbc5ce5c2d8b6330c5857a888ee6b3d74b2ba009c8553cc7b8adb51793862e"
     "9c9c933959ea73d720786e471dfdd2bed572e25f683dcd6f7e729db0254f74ad"},
    {"a7c57c5af28a258926838c39ae62194005c93afffe5592a685b150c9de3ccf79c223616674d676517f4bd1a2fc3bd6ec",
     "a0ea3af0cc95103ba3e89e5e4a6b792bfb19eef9580255ed76e71ed0e5325848"
     "497d7757eb5cb319475b77926abb6a2bfb4437ccff0c8356c1b5705d85842d93"},
    {"b7f7e4e68356b2ac2c2c0075c0ef5ec6f5a6f225a18db00830261a95765771eba739a7cf8a1126c58994c43b2d28024a",
     "a15e8cc437a600a51dcfb778afa23d577d0e56b004f56eeb286e6c949d982bdb"
     "9353cbc63d33d7d397ceb4fea51a6df0b4d6d4cd32b9065bc4110d790c610e44"},
};

std::string second_output(CtrDrbg& drbg) {
  std::array<std::byte, 64> out;
  drbg.generate(out);
  drbg.generate(out);
  return to_hex(out);
}

TEST(CtrDrbg, KnownAnswersOfCavpWithoutReseed) {
  for (const Vector& vector : kNoReseed) {
    CtrDrbg drbg(from_hex<48>(vector.entropy));
    EXPECT_EQ(second_output(drbg), vector.returned);
  }
}

// drbgvectors_pr_false/CTR_DRBG.rsp, the same section, COUNT = 0: instantiate, reseed, generate twice.
TEST(CtrDrbg, KnownAnswerOfCavpWithReseed) {
  CtrDrbg drbg(from_hex<48>("e4bc23c5089a19d86f4119cb3fa08c0a4991e0a1def17e101e4c14d9c323460a7c2fb58e0b086c6c57b55f56cae25bad"));
  drbg.reseed(from_hex<48>("fd85a836bba85019881e8c6bad23c9061adc75477659acaea8e4a01dfe07a1832dad1c136f59d70f8653a5dc118663d6"));
  EXPECT_EQ(second_output(drbg),
            "b2cb8905c05e5950ca31895096be29ea3d5a3b82b269495554eb80fe07de43e1"
            "93b9e7c3ece73b80e062b1c1f68202fbb1c52a040ea2478864295282234aaada");
}

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
