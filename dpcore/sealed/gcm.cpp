#include "dpcore/sealed/gcm.h"

#include <limits>
#include <memory>

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>

#include "dpcore/error.h"
#include "dpcore/keys/bytes.h"
#include "dpcore/keys/fips.h"

namespace hushgrad {
namespace {

struct FreeCipher {
  void operator()(EVP_CIPHER* cipher) const { EVP_CIPHER_free(cipher); }
  void operator()(EVP_CIPHER_CTX* context) const { EVP_CIPHER_CTX_free(context); }
};
using Context = std::unique_ptr<EVP_CIPHER_CTX, FreeCipher>;

// OpenSSL takes lengths as int.
bool fits(std::size_t size) { return size <= static_cast<std::size_t>(std::numeric_limits<int>::max()); }

void check(std::size_t key, std::size_t iv, std::size_t tag, std::size_t associated_data, std::size_t in,
           std::size_t out) {
  if (key == kGcmKeyBytes && iv == kGcmIvBytes && tag == kGcmTagBytes && in == out && fits(in) &&
      fits(associated_data)) {
    return;
  }
  throw InvalidArgument(
      message("[gcm] Expected a key of 32, an IV of 12 and a tag of 16 bytes and as many bytes out as in, "
              "received ",
              key, ", ", iv, ", ", tag, ", ", in, " in and ", out, " out."));
}

[[noreturn]] void fail() {
  ERR_clear_error();
  throw IoError("[gcm] Expected AES-256-GCM from OpenSSL, received an error. Check that its providers load.");
}

// Everything before the tag: key, IV (12 bytes is the default and is never passed as a parameter,
// CVE-2023-5363), associated data, data.
Context run(int encrypt, std::span<const std::byte> key, std::span<const std::byte> iv,
            std::span<const std::byte> associated_data, std::span<const std::byte> in,
            std::span<std::byte> out) {
  static Fetched<EVP_CIPHER> fetched(EVP_CIPHER_fetch, "AES-256-GCM");
  const EVP_CIPHER* const cipher = fetched.get();
  Context context(EVP_CIPHER_CTX_new());
  int length = 0;
  if (cipher == nullptr || !context ||
      EVP_CipherInit_ex2(context.get(), cipher, openssl_in(key), openssl_in(iv), encrypt, nullptr) !=
          1) {
    fail();
  }
  if (!associated_data.empty() &&
      EVP_CipherUpdate(context.get(), nullptr, &length, openssl_in(associated_data),
                       static_cast<int>(associated_data.size())) != 1) {
    fail();
  }
  if (!in.empty() && EVP_CipherUpdate(context.get(), openssl_out(out), &length, openssl_in(in),
                                      static_cast<int>(in.size())) != 1) {
    fail();
  }
  return context;
}

}  // namespace

void gcm_seal(std::span<const std::byte> key, std::span<const std::byte> iv,
              std::span<const std::byte> associated_data, std::span<const std::byte> plaintext,
              std::span<std::byte> ciphertext, std::span<std::byte> tag) {
  check(key.size(), iv.size(), tag.size(), associated_data.size(), plaintext.size(), ciphertext.size());
  const Context context = run(1, key, iv, associated_data, plaintext, ciphertext);
  unsigned char nothing[16];
  int length = 0;
  if (EVP_CipherFinal_ex(context.get(), nothing, &length) != 1 ||
      EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_AEAD_GET_TAG, static_cast<int>(tag.size()), tag.data()) !=
          1) {
    fail();
  }
}

bool gcm_open(std::span<const std::byte> key, std::span<const std::byte> iv,
              std::span<const std::byte> associated_data, std::span<const std::byte> ciphertext,
              std::span<const std::byte> tag, std::span<std::byte> plaintext) {
  check(key.size(), iv.size(), tag.size(), associated_data.size(), ciphertext.size(), plaintext.size());
  const Context context = run(0, key, iv, associated_data, ciphertext, plaintext);
  unsigned char nothing[16];
  int length = 0;
  if (EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_AEAD_SET_TAG, static_cast<int>(tag.size()),
                          const_cast<std::byte*>(tag.data())) != 1) {
    fail();
  }
  if (EVP_CipherFinal_ex(context.get(), nothing, &length) == 1) return true;
  ERR_clear_error();
  OPENSSL_cleanse(plaintext.data(), plaintext.size());
  return false;
}

}  // namespace hushgrad
