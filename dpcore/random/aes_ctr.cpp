#include "dpcore/random/aes_ctr.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <algorithm>

#include "dpcore/error.h"
#include "dpcore/keys/fips.h"

namespace hushgrad {
namespace {

// The key stream is the encryption of zeros; one page of them is enough for any length.
constexpr std::array<unsigned char, 16384> kZeros{};

const EVP_CIPHER* aes_256_ctr() {
  static Fetched<EVP_CIPHER> fetched(EVP_CIPHER_fetch, "AES-256-CTR");
  return fetched.get();
}

void check(bool worked) {
  if (worked) return;
  throw InvalidState(
      "[random] Expected AES-256-CTR from OpenSSL, received an error. Check the OpenSSL installation and its "
      "providers.");
}

const unsigned char* raw(std::span<const std::byte> bytes) {
  return reinterpret_cast<const unsigned char*>(bytes.data());
}

}  // namespace

void AesCtr::Free::operator()(evp_cipher_ctx_st* context) const noexcept { EVP_CIPHER_CTX_free(context); }

AesCtr::AesCtr(Key key, Counter counter) : context_(EVP_CIPHER_CTX_new()) {
  check(context_ != nullptr);
  rekey(key, counter);
}

void AesCtr::rekey(Key key, Counter counter) {
  check(aes_256_ctr() != nullptr &&
        EVP_EncryptInit_ex2(context_.get(), aes_256_ctr(), raw(key), raw(counter), nullptr) == 1);
}

void AesCtr::seek(Counter counter) {
  check(EVP_EncryptInit_ex2(context_.get(), nullptr, nullptr, raw(counter), nullptr) == 1);
}

void AesCtr::fill(std::span<std::byte> out) {
  while (!out.empty()) {
    const auto size = static_cast<int>(std::min(out.size(), kZeros.size()));
    int written = 0;
    check(EVP_EncryptUpdate(context_.get(), reinterpret_cast<unsigned char*>(out.data()), &written,
                            kZeros.data(), size) == 1 &&
          written == size);
    out = out.subspan(static_cast<std::size_t>(size));
  }
}

void wipe(std::span<std::byte> secret) noexcept { OPENSSL_cleanse(secret.data(), secret.size()); }

}  // namespace hushgrad
