#include "dpcore/keys/key_wrap.h"

#include <algorithm>
#include <memory>

#include <openssl/err.h>
#include <openssl/evp.h>

#include "dpcore/error.h"
#include "dpcore/keys/bytes.h"
#include "dpcore/keys/fips.h"

namespace hushgrad {
namespace {

constexpr std::size_t kKekBytes = 32;
constexpr std::size_t kMaxKeyBytes = 4096;

struct FreeCipher {
  void operator()(EVP_CIPHER_CTX* context) const { EVP_CIPHER_CTX_free(context); }
};

void check_kek(std::span<const std::byte> kek) {
  if (kek.size() == kKekBytes) return;
  throw InvalidArgument(message("[key_wrap] Expected a key-encryption key of ", kKekBytes,
                                " bytes, received ", kek.size(), "."));
}

// The number of bytes written to `out`, or -1. `out` needs room for one block more than `in`.
int run(bool encrypt, std::span<const std::byte> kek, std::span<const std::byte> in,
        std::span<std::byte> out) {
  static Fetched<EVP_CIPHER> fetched(EVP_CIPHER_fetch, "AES-256-WRAP-PAD");
  const EVP_CIPHER* const cipher = fetched.get();
  std::unique_ptr<EVP_CIPHER_CTX, FreeCipher> context(EVP_CIPHER_CTX_new());
  if (cipher == nullptr || !context) throw IoError("[key_wrap] Expected AES-256-KWP from OpenSSL, received none.");
  EVP_CIPHER_CTX_set_flags(context.get(), EVP_CIPHER_CTX_FLAG_WRAP_ALLOW);
  int length = 0, rest = 0;
  const bool done = EVP_CipherInit_ex2(context.get(), cipher, openssl_in(kek), nullptr, encrypt ? 1 : 0,
                                       nullptr) == 1 &&
                    EVP_CipherUpdate(context.get(), openssl_out(out), &length, openssl_in(in),
                                     static_cast<int>(in.size())) == 1 &&
                    EVP_CipherFinal_ex(context.get(), openssl_out(out) + length, &rest) == 1;
  ERR_clear_error();
  return done ? length + rest : -1;
}

}  // namespace

std::vector<std::byte> aes256_kwp_wrap(std::span<const std::byte> kek, std::span<const std::byte> key) {
  check_kek(kek);
  if (key.empty() || key.size() > kMaxKeyBytes) {
    throw InvalidArgument(
        message("[key_wrap] Expected a key of 1..", kMaxKeyBytes, " bytes, received ", key.size(), "."));
  }
  std::vector<std::byte> wrapped(key.size() + 32);
  const int length = run(true, kek, key, wrapped);
  if (length < 0) throw IoError("[key_wrap] Expected a wrapped key from OpenSSL, received an error.");
  wrapped.resize(static_cast<std::size_t>(length));
  return wrapped;
}

std::optional<SecretBytes> aes256_kwp_unwrap(std::span<const std::byte> kek,
                                             std::span<const std::byte> wrapped) {
  check_kek(kek);
  if (wrapped.size() < 16 || wrapped.size() % 8 != 0 || wrapped.size() > kMaxKeyBytes + 8) {
    return std::nullopt;
  }
  SecretBytes room(wrapped.size() + 16);  // the padded key passes through here before its length is known
  const int length = run(false, kek, wrapped, room.bytes());
  if (length <= 0) return std::nullopt;
  SecretBytes key(static_cast<std::size_t>(length));
  std::copy_n(room.bytes().begin(), key.size(), key.bytes().begin());
  return key;
}

}  // namespace hushgrad
