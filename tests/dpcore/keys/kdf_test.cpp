#include "dpcore/keys/kdf.h"

#include "dpcore/error.h"
#include "dpcore/keys/seal_testing.h"

namespace hushgrad {
namespace {

using namespace seal_testing;

// FIPS 180-4, example "abc".
TEST(Kdf, Sha384OfAbc) {
  EXPECT_EQ(
      to_hex(sha384(text_bytes("abc"))),
      "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7");
}

// RFC 4231, test case 1.
TEST(Kdf, HmacSha384OfHiThere) {
  EXPECT_EQ(
      to_hex(hmac_sha384(Bytes(20, std::byte{0x0b}), text_bytes("Hi There"))),
      "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59cfaea9ea9076ede7f4af152e8b2fa9cb6");
}

// Wycheproof gives extract-then-expand; extract is one HMAC (RFC 5869 section 2.2).
TEST(Kdf, HkdfExpandAgreesWithWycheproof) {
  SKIP_WITHOUT_VECTORS();
  int run = 0;
  const auto published = load_vectors("wycheproof/hkdf_sha384_test.json");
  for (const auto& group : published["testGroups"]) {
    for (const auto& test : group["tests"]) {
      SCOPED_TRACE(test["tcId"].get<int>());
      const Bytes salt = hex(test["salt"]), info = hex(test["info"]);
      const Sha384 key = hmac_sha384(salt.empty() ? Bytes(48) : salt, hex(test["ikm"]));
      Bytes out(test["size"].get<std::size_t>());
      if (test["result"] == "valid") {
        hkdf_expand_sha384(key, info, out);
        EXPECT_EQ(to_hex(out), test["okm"]);
      } else {
        EXPECT_THROW(hkdf_expand_sha384(key, info, out), InvalidArgument);
      }
      ++run;
    }
  }
  EXPECT_EQ(run, 83);
}

TEST(Kdf, RefusesLengthsOutsideItsDomain) {
  Bytes key(32), out(32), nothing;
  EXPECT_NO_THROW(hkdf_expand_sha384(key, Bytes(1024), out));
  EXPECT_THROW(hkdf_expand_sha384(key, Bytes(1025), out), InvalidArgument);
  EXPECT_THROW(hkdf_expand_sha384(nothing, {}, out), InvalidArgument);
  EXPECT_THROW(hkdf_expand_sha384(key, {}, nothing), InvalidArgument);
  EXPECT_THROW(hmac_sha384(nothing, key), InvalidArgument);
}

TEST(Kdf, ComparesEveryBit) {
  const Bytes a(48);
  EXPECT_TRUE(equal_in_constant_time(a, Bytes(48)));
  EXPECT_FALSE(equal_in_constant_time(a, Bytes(47)));
  for (std::size_t bit = 0; bit < 8 * a.size(); ++bit) {
    Bytes b = a;
    b[bit / 8] ^= std::byte{1} << (bit % 8);
    EXPECT_FALSE(equal_in_constant_time(a, b)) << bit;
  }
}

}  // namespace
}  // namespace hushgrad
