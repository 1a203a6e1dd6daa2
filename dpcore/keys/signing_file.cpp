// PKCS#8 files of signing keys; the rest of the class is in signing.cpp.
#include <algorithm>
#include <array>
#include <string_view>

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/pkcs12.h>
#include <openssl/x509.h>

#include "dpcore/error.h"
#include "dpcore/keys/bytes.h"
#include "dpcore/keys/durable_file.h"
#include "dpcore/keys/fips.h"
#include "dpcore/keys/private_file.h"
#include "dpcore/keys/signing.h"

namespace hushgrad {
namespace {

constexpr std::size_t kMaxFileBytes = 16 * 1024;
constexpr std::size_t kMaxPassphrase = 1024;
constexpr std::uint64_t kScryptCost = std::uint64_t{1} << 14;  // 16 MiB: OpenSSL sets no more than 32 here
constexpr int kPbkdf2Rounds = 600'000;

struct Free {
  void operator()(BIO* bio) const { BIO_free_all(bio); }
  void operator()(PKCS8_PRIV_KEY_INFO* key) const { PKCS8_PRIV_KEY_INFO_free(key); }
  void operator()(X509_SIG* encrypted) const { X509_SIG_free(encrypted); }
};
template <typename T>
using Owned = std::unique_ptr<T, Free>;
using Passphrase = std::optional<std::span<const std::byte>>;

[[noreturn]] void refuse(const char* received) {
  ERR_clear_error();
  throw KeyError(message("[signing_key] Expected a PKCS#8 file of a P-384 or Ed25519 key and its passphrase, received ",
                         received, ". Give the file that `hushgrad keys identity` wrote."));
}

[[noreturn]] void fail(const char* step) {
  ERR_clear_error();
  throw IoError(message("[signing_key] Expected OpenSSL to ", step, ", received an error."));
}

void check_passphrase(const Passphrase& passphrase) {
  if (!passphrase || (!passphrase->empty() && passphrase->size() <= kMaxPassphrase)) return;
  throw InvalidArgument("[signing_key] Expected a passphrase of 1..1024 bytes, received another.");
}

const char* characters(std::span<const std::byte> bytes) { return reinterpret_cast<const char*>(bytes.data()); }

Owned<PKCS8_PRIV_KEY_INFO> decrypt(BIO* file, std::span<const std::byte> passphrase) {
  const Owned<X509_SIG> encrypted(PEM_read_bio_PKCS8(file, nullptr, nullptr, nullptr));
  if (!encrypted) refuse("a malformed file");
  const OpensslSource source = openssl_source();
  Owned<PKCS8_PRIV_KEY_INFO> key(PKCS8_decrypt_ex(encrypted.get(), characters(passphrase),
                                                  static_cast<int>(passphrase.size()), source.context,
                                                  source.properties));
  if (!key) refuse("another passphrase or an altered file");
  return key;
}

X509_ALGOR* encryption() {
  const OpensslSource source = openssl_source();
  std::array<unsigned char, 16> salt;
  fill_random(std::as_writable_bytes(std::span(salt)));
  if (source.context != nullptr) {  // scrypt is not approved
    return PKCS5_pbe2_set_iv_ex(EVP_aes_256_cbc(), kPbkdf2Rounds, salt.data(), static_cast<int>(salt.size()), nullptr,
                                NID_hmacWithSHA256, source.context);
  }
  return PKCS5_pbe2_set_scrypt(EVP_aes_256_cbc(), salt.data(), static_cast<int>(salt.size()), nullptr, kScryptCost, 8,
                               5);
}

void write_encrypted(BIO* out, PKCS8_PRIV_KEY_INFO* key, std::span<const std::byte> passphrase) {
  X509_ALGOR* algorithm = encryption();
  if (algorithm == nullptr) fail("prepare the encryption of a key");
  const OpensslSource source = openssl_source();
  const Owned<X509_SIG> encrypted(PKCS8_set0_pbe_ex(characters(passphrase), static_cast<int>(passphrase.size()), key,
                                                    algorithm, source.context, source.properties));
  if (!encrypted) {
    X509_ALGOR_free(algorithm);
    fail("encrypt a key");
  }
  if (PEM_write_bio_PKCS8(out, encrypted.get()) != 1) fail("write a key");
}

Owned<PKCS8_PRIV_KEY_INFO> pkcs8_of(EVP_PKEY* key) {
  Owned<PKCS8_PRIV_KEY_INFO> info(EVP_PKEY2PKCS8(key));
  if (!info) fail("encode a key");
  return info;
}

std::shared_ptr<EVP_PKEY> key_of(PKCS8_PRIV_KEY_INFO* info) {
  const OpensslSource source = openssl_source();
  std::shared_ptr<EVP_PKEY> key(EVP_PKCS82PKEY_ex(info, source.context, source.properties), EVP_PKEY_free);
  if (!key || !(EVP_PKEY_is_a(key.get(), "EC") || EVP_PKEY_is_a(key.get(), "ED25519"))) {
    refuse("a key of another algorithm");
  }
  return key;
}

}  // namespace

SigningKey SigningKey::load(const std::string& path, Passphrase passphrase) {
  check_passphrase(passphrase);
  const SecretBytes text = read_private_file(path, "signing key", kMaxFileBytes);
  const std::string_view view(characters(text.bytes()), text.size());
  const bool encrypted = view.find("-----BEGIN ENCRYPTED PRIVATE KEY-----") != view.npos;
  if (encrypted != passphrase.has_value()) {
    refuse(encrypted ? "no passphrase for a file that has one" : "a passphrase for a file that has none");
  }
  const Owned<BIO> file(BIO_new_mem_buf(text.bytes().data(), static_cast<int>(text.size())));
  if (!file) refuse("an empty file");
  const Owned<PKCS8_PRIV_KEY_INFO> info =
      encrypted ? decrypt(file.get(), *passphrase)
                : Owned<PKCS8_PRIV_KEY_INFO>(PEM_read_bio_PKCS8_PRIV_KEY_INFO(file.get(), nullptr, nullptr, nullptr));
  if (!info) refuse("a malformed file");
  try {
    return SigningKey(key_of(info.get()));
  } catch (const InvalidArgument&) {  // a curve that is not ours, or Ed25519 in FIPS mode
    refuse("a key of another algorithm or curve");
  }
}

SigningKey SigningKey::from_pkcs8(std::span<const std::byte> der) {
  const unsigned char* cursor = openssl_in(der);
  const Owned<PKCS8_PRIV_KEY_INFO> info(d2i_PKCS8_PRIV_KEY_INFO(nullptr, &cursor, static_cast<long>(der.size())));
  if (!info) refuse("malformed bytes");
  return SigningKey(key_of(info.get()));
}

SecretBytes SigningKey::pkcs8() const {
  const Owned<PKCS8_PRIV_KEY_INFO> info = pkcs8_of(key_.get());
  unsigned char* der = nullptr;
  const int size = i2d_PKCS8_PRIV_KEY_INFO(info.get(), &der);
  if (size <= 0) fail("encode a key");
  SecretBytes bytes(static_cast<std::size_t>(size));
  std::copy_n(reinterpret_cast<const std::byte*>(der), bytes.size(), bytes.bytes().begin());
  OPENSSL_clear_free(der, bytes.size());
  return bytes;
}

void SigningKey::save(const std::string& path, Passphrase passphrase) const {
  check_passphrase(passphrase);
  const Owned<PKCS8_PRIV_KEY_INFO> info = pkcs8_of(key_.get());
  const Owned<BIO> out(BIO_new(BIO_s_secmem()));
  if (!out) fail("write a key");
  if (passphrase) {
    write_encrypted(out.get(), info.get(), *passphrase);
  } else if (PEM_write_bio_PKCS8_PRIV_KEY_INFO(out.get(), info.get()) != 1) {
    fail("write a key");
  }
  char* text = nullptr;
  const long size = BIO_get_mem_data(out.get(), &text);
  DurableFile file(path, IfExists::refuse);
  file.write_at(0, std::as_bytes(std::span(text, static_cast<std::size_t>(size))));
  file.publish();
}

}  // namespace hushgrad
