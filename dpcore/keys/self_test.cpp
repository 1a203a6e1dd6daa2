#include "dpcore/keys/self_test.h"

#include <string_view>

#include "dpcore/error.h"
#include "dpcore/keys/bytes.h"
#include "dpcore/keys/kdf.h"
#include "dpcore/keys/key_wrap.h"
#include "dpcore/keys/signing.h"
#include "dpcore/sealed/gcm.h"

namespace hushgrad {
namespace {

using Bytes = std::vector<std::byte>;

Bytes hex(std::string_view digits) {
  Bytes bytes(digits.size() / 2);
  from_hex(digits, bytes);
  return bytes;
}

// FIPS 180-4, example "abc".
bool sha_384() {
  return to_hex(sha384(text_bytes("abc"))) ==
         "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7";
}

// RFC 4231, test case 1.
bool hmac() {
  return to_hex(hmac_sha384(Bytes(20, std::byte{0x0b}), text_bytes("Hi There"))) ==
         "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59cfaea9ea9076ede7f4af152e8b2fa9cb6";
}

// Wycheproof hkdf_sha384_test, tcId 10; the pseudorandom key is HMAC(salt, ikm).
bool hkdf() {
  Bytes out(20);
  hkdf_expand_sha384(hex("6c29260c4586df3239e7bdf21e10c402d25a32f6ad1ca1417e6af4418e1245ae7330bc1afc7a3756f2ab54ae5fd88515"),
                     hex("e0ddfaaaa7afb53f59a007a205c7149b5b5a72be"), out);
  return to_hex(out) == "00aa140387a3d43aae915c35b306533179019bab";
}

// Wycheproof aes_gcm_test, tcId 91.
bool gcm() {
  const Bytes key = hex("92ace3e348cd821092cd921aa3546374299ab46209691bc28b8752d17f123c20");
  const Bytes iv = hex("00112233445566778899aabb"), data = hex("00000000ffffffff"), text = hex("00010203040506070809");
  Bytes sealed(text.size()), tag(kGcmTagBytes), opened(text.size());
  gcm_seal(key, iv, data, text, sealed, tag);
  if (to_hex(sealed) != "e27abdd2d2a53d2f136b" || to_hex(tag) != "9a4a2579529301bcfb71c78d4060f52c") return false;
  if (!gcm_open(key, iv, data, sealed, tag, opened) || opened != text) return false;
  tag[15] ^= std::byte{1};
  return !gcm_open(key, iv, data, sealed, tag, opened);
}

// Wycheproof aes_kwp_test, tcId 167.
bool kwp() {
  const Bytes kek = hex("38e1b1d075d9d852b9a6c01c8ff6965af01bac457a4e339ae3e1d7b2ffacc0cd");
  const Bytes key = hex("80ad6820f1c90981e2ca42b817a345c1179d0a11d8e23a8adc0505e13d87295a");
  Bytes wrapped = aes256_kwp_wrap(kek, key);
  if (to_hex(wrapped) != "b63b7e0fec7e315816233db6758fd3e744b9f6a40862bdf866487e53bcb950d8b2649269e51b4475") return false;
  const auto found = aes256_kwp_unwrap(kek, wrapped);
  if (!found || to_hex(found->bytes()) != to_hex(key)) return false;
  wrapped[0] ^= std::byte{1};
  return !aes256_kwp_unwrap(kek, wrapped);
}

// Wycheproof ecdsa_secp384r1_sha384_test, tcId 2; then a signature of our own.
bool ecdsa() {
  const PublicKey known = PublicKey::from_pem(
      "-----BEGIN PUBLIC KEY-----\n"
      "MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEKb23bV+nQb/XAjPLOmbMfUS+s7BmPZKo\n"
      "E2ZQR4vO+2HvGC4VWlQ0Wl6OXojwZOW8mlJat/dk2tPa4UaMK0GfO2K5upF9XoxP\n"
      "sexHQEo/x2R0snEwgb6dtMAOBDran8Sj\n"
      "-----END PUBLIC KEY-----\n");
  Bytes signature =
      hex("3066023100d7143a836608b25599a7f28dec6635494c2992ad1e2bbeecb7ef601a9c01746e710ce0d9c48accb38a79ede5b9638f3402310080f9"
          "e165e8c61035bf8aa7b5533960e46dd0e211c904a064edb6de41f797c0eae4e327612ee3f816f4157272bb4fabc9");
  if (!verify_without_context(known, hex("4d7367"), signature)) return false;
  signature.back() ^= std::byte{1};
  if (verify_without_context(known, hex("4d7367"), signature)) return false;
  const SigningKey own = SigningKey::generate();
  return own.public_key().verify("self-test", {}, own.sign("self-test", {}));
}

bool passes(bool (*test)()) {
  try {
    return test();
  } catch (const std::exception&) {
    return false;
  }
}

}  // namespace

std::vector<SelfTest> run_self_tests() {
  return {{"SHA-384", passes(sha_384)},     {"HMAC-SHA-384", passes(hmac)}, {"HKDF-Expand-SHA-384", passes(hkdf)},
          {"AES-256-GCM", passes(gcm)}, {"AES-256-KWP", passes(kwp)},   {"ECDSA P-384", passes(ecdsa)}};
}

void require_self_tests() {
  static const std::string failed = [] {
    for (const SelfTest& test : run_self_tests()) {
      if (!test.passed) return test.name;
    }
    return std::string();
  }();
  if (failed.empty()) return;
  throw InvalidState(message("[self_test] Expected the known answer of ", failed,
                             ", received another or none. Check the OpenSSL installation; no key is used."));
}

}  // namespace hushgrad
