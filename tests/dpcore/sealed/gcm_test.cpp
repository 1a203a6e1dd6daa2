#include "dpcore/sealed/gcm.h"

#include <algorithm>

#include "dpcore/error.h"
#include "dpcore/keys/seal_testing.h"

namespace hushgrad {
namespace {

using namespace seal_testing;

// Other key and IV lengths (250 tests) are not offered and are the only ones left out.
TEST(Gcm, AgreesWithWycheproof) {
  SKIP_WITHOUT_VECTORS();
  int run = 0, left_out = 0;
  const auto published = load_vectors("wycheproof/aes_gcm_test.json");
  for (const auto& group : published["testGroups"]) {
    for (const auto& test : group["tests"]) {
      SCOPED_TRACE(test["tcId"].get<int>());
      const Bytes key = hex(test["key"]), iv = hex(test["iv"]), aad = hex(test["aad"]),
                  plaintext = hex(test["msg"]), ciphertext = hex(test["ct"]), tag = hex(test["tag"]);
      if (key.size() != kGcmKeyBytes || iv.size() != kGcmIvBytes) {
        ++left_out;
        continue;
      }
      ++run;
      Bytes opened(ciphertext.size(), std::byte{0xEE});
      const bool valid = gcm_open(key, iv, aad, ciphertext, tag, opened);
      EXPECT_EQ(valid, test["result"] == "valid");
      EXPECT_EQ(opened, valid ? plaintext : Bytes(ciphertext.size()))
          << "nothing but zeros without a valid tag";
      if (!valid) continue;
      Bytes sealed(plaintext.size()), made(kGcmTagBytes);
      gcm_seal(key, iv, aad, plaintext, sealed, made);
      EXPECT_EQ(sealed, ciphertext);
      EXPECT_EQ(made, tag);
    }
  }
  EXPECT_EQ(run, 66);
  EXPECT_EQ(left_out, 250);
}

TEST(Gcm, RefusesOtherLengths) {
  Bytes data(5), out(5), tag(16);
  const Bytes key(32), iv(12);
  EXPECT_THROW(gcm_seal(Bytes(16), iv, {}, data, out, tag), InvalidArgument);
  EXPECT_THROW(gcm_seal(key, Bytes(8), {}, data, out, tag), InvalidArgument);
  EXPECT_THROW(gcm_seal(key, iv, {}, data, std::span(out).first(4), tag), InvalidArgument);
  EXPECT_THROW((void)gcm_open(key, iv, {}, data, std::span(tag).first(15), out), InvalidArgument);
}

}  // namespace
}  // namespace hushgrad
