#include "dpcore/keys/kdf.h"

#include <memory>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>

#include "dpcore/error.h"
#include "dpcore/keys/bytes.h"
#include "dpcore/keys/fips.h"

namespace hushgrad {
namespace {

constexpr std::size_t kMaxInfoBytes = 1024;
constexpr std::size_t kMaxOutputBytes = 255 * sizeof(Sha384);
char kDigest[] = "SHA384";

[[noreturn]] void fail(const char* what) {
  ERR_clear_error();
  throw IoError(message(
      "[", what, "] Expected a result from OpenSSL, received an error. Check that its providers load."));
}

struct FreeKdf {
  void operator()(EVP_KDF_CTX* context) const { EVP_KDF_CTX_free(context); }
};

}  // namespace

Sha384 sha384(std::span<const std::byte> data) {
  Sha384 digest;
  const OpensslSource source = openssl_source();
  if (!EVP_Q_digest(source.context, kDigest, source.properties, data.data(), data.size(), openssl_out(digest), nullptr)) {
    fail("sha384");
  }
  return digest;
}

Sha384 hmac_sha384(std::span<const std::byte> key, std::span<const std::byte> data) {
  if (key.empty()) throw InvalidArgument("[hmac_sha384] Expected a key, received none.");
  Sha384 mac;
  const OpensslSource source = openssl_source();
  if (EVP_Q_mac(source.context, "HMAC", source.properties, kDigest, nullptr, key.data(), key.size(), openssl_in(data),
                data.size(), openssl_out(mac), mac.size(), nullptr) == nullptr) {
    fail("hmac_sha384");
  }
  return mac;
}

void hkdf_expand_sha384(std::span<const std::byte> key, std::span<const std::byte> info,
                        std::span<std::byte> out) {
  if (key.empty() || info.size() > kMaxInfoBytes || out.empty() || out.size() > kMaxOutputBytes) {
    throw InvalidArgument(message("[hkdf_expand] Expected a key, at most ", kMaxInfoBytes,
                                  " bytes of info and 1..", kMaxOutputBytes, " bytes out, received ",
                                  key.size(), ", ", info.size(), " and ", out.size(), " bytes."));
  }
  static Fetched<EVP_KDF> kdf(EVP_KDF_fetch, "HKDF");
  std::unique_ptr<EVP_KDF_CTX, FreeKdf> context(EVP_KDF_CTX_new(kdf.get()));
  int mode = EVP_KDF_HKDF_MODE_EXPAND_ONLY;
  const OSSL_PARAM parameters[] = {
      OSSL_PARAM_construct_int(OSSL_KDF_PARAM_MODE, &mode),
      OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, kDigest, 0),
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, const_cast<std::byte*>(key.data()), key.size()),
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, const_cast<std::byte*>(info.data()),
                                        info.size()),
      OSSL_PARAM_construct_end()};
  if (!context || EVP_KDF_derive(context.get(), openssl_out(out), out.size(), parameters) != 1) {
    fail("hkdf_expand");
  }
}

bool equal_in_constant_time(std::span<const std::byte> a, std::span<const std::byte> b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

}  // namespace hushgrad
