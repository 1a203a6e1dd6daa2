#include "dpcore/keys/signing.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>
#include <utility>

#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/x509.h>

#include "dpcore/error.h"
#include "dpcore/keys/bytes.h"
#include "dpcore/keys/fips.h"
#include "dpcore/keys/kdf.h"

namespace hushgrad {
namespace {

constexpr std::string_view kPrefix = "hushgrad signature 1";
constexpr std::size_t kMaxContext = 64;

// SubjectPublicKeyInfo up to the key itself. One encoding a key, so that its hash is its name.
constexpr unsigned char kP384Prefix[] = {0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02,
                                         0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22, 0x03, 0x62, 0x00, 0x04};
constexpr std::size_t kP384Bytes = sizeof kP384Prefix + 96;
constexpr unsigned char kEd25519Prefix[] = {0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00};
constexpr std::size_t kEd25519Bytes = sizeof kEd25519Prefix + 32;

struct Free {
  void operator()(EVP_PKEY_CTX* context) const { EVP_PKEY_CTX_free(context); }
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
};
template <typename T>
using Owned = std::unique_ptr<T, Free>;

[[noreturn]] void fail(const char* step) {
  ERR_clear_error();
  throw IoError(message("[signing] Expected OpenSSL to ", step, ", received an error. Check that its providers load."));
}

[[noreturn]] void refuse_public_key() {
  ERR_clear_error();
  throw InvalidArgument(
      "[public_key] Expected one PEM block of a P-384 public key (uncompressed point) or, outside FIPS mode, an Ed25519 "
      "key, received another. Give what `hushgrad keys identity` or `export-public` wrote.");
}

template <std::size_t N>
bool starts_with(std::span<const std::byte> bytes, const unsigned char (&prefix)[N]) {
  return bytes.size() >= N && std::memcmp(bytes.data(), prefix, N) == 0;
}

std::optional<SignatureAlgorithm> algorithm_of(std::span<const std::byte> der) {
  if (der.size() == kP384Bytes && starts_with(der, kP384Prefix)) return SignatureAlgorithm::ecdsa_p384_sha384;
  if (der.size() == kEd25519Bytes && starts_with(der, kEd25519Prefix)) return SignatureAlgorithm::ed25519;
  return std::nullopt;
}

void refuse_unapproved(SignatureAlgorithm algorithm) {
  if (algorithm == SignatureAlgorithm::ed25519 && fips_mode()) {
    throw InvalidArgument("[signing] Expected ecdsa-p384-sha384 in FIPS mode, received ed25519. Make a P-384 key.");
  }
}

std::vector<std::byte> framed(const std::string& context, std::span<const std::byte> message) {
  check_signature_context(context);
  std::vector<std::byte> bytes;
  bytes.reserve(kPrefix.size() + context.size() + message.size() + 2);
  append(bytes, text_bytes(kPrefix));
  bytes.push_back(std::byte{0});
  append(bytes, text_bytes(context));
  bytes.push_back(std::byte{0});
  append(bytes, message);
  return bytes;
}

// Ed25519 hashes by itself.
const char* digest_of(SignatureAlgorithm algorithm) {
  return algorithm == SignatureAlgorithm::ecdsa_p384_sha384 ? "SHA384" : nullptr;
}

std::vector<std::byte> spki_of(EVP_PKEY* key) {
  EVP_PKEY_set_utf8_string_param(key, OSSL_PKEY_PARAM_EC_POINT_CONVERSION_FORMAT, "uncompressed");
  ERR_clear_error();  // Ed25519 has no such parameter
  unsigned char* der = nullptr;
  const int size = i2d_PUBKEY(key, &der);
  if (size <= 0) fail("encode a public key");
  const auto* bytes = reinterpret_cast<const std::byte*>(der);
  std::vector<std::byte> out(bytes, bytes + size);
  OPENSSL_free(der);
  return out;
}

}  // namespace

const char* to_string(SignatureAlgorithm algorithm) {
  return algorithm == SignatureAlgorithm::ed25519 ? "ed25519" : "ecdsa-p384-sha384";
}

SignatureAlgorithm signature_algorithm(const std::string& name) {
  for (const auto algorithm : {SignatureAlgorithm::ecdsa_p384_sha384, SignatureAlgorithm::ed25519}) {
    if (name == to_string(algorithm)) return algorithm;
  }
  throw InvalidArgument("[signing] Expected algorithm ecdsa-p384-sha384 or ed25519, received another.");
}

void check_signature_context(const std::string& context) {
  const bool good = !context.empty() && context.size() <= kMaxContext &&
                    std::all_of(context.begin(), context.end(), [](char c) {
                      return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
                             std::string_view(" -_./").find(c) != std::string_view::npos;
                    });
  if (good) return;
  throw InvalidArgument(
      "[signing] Expected a context of 1..64 characters of a-z, 0-9, space and \"-_./\", received another. Name the "
      "purpose of the signature.");
}

PublicKey::PublicKey(std::vector<std::byte> der) : der_(std::move(der)) {
  const auto algorithm = algorithm_of(der_);
  if (!algorithm) refuse_public_key();
  refuse_unapproved(*algorithm);
  algorithm_ = *algorithm;
  const OpensslSource source = openssl_source();
  const unsigned char* cursor = openssl_in(der_);
  key_.reset(d2i_PUBKEY_ex(nullptr, &cursor, static_cast<long>(der_.size()), source.context, source.properties),
             EVP_PKEY_free);
  if (!key_) refuse_public_key();
  const Owned<EVP_PKEY_CTX> context(EVP_PKEY_CTX_new_from_pkey(source.context, key_.get(), source.properties));
  if (!context || EVP_PKEY_public_check(context.get()) != 1) refuse_public_key();
  id_ = to_hex(sha384(der_)).substr(0, 32);
}

PublicKey PublicKey::from_pem(const std::string& pem) {
  constexpr std::string_view begin = "-----BEGIN PUBLIC KEY-----", end = "-----END PUBLIC KEY-----";
  std::string_view text = pem;
  const auto blank = [](char c) { return c == '\n' || c == '\r' || c == ' ' || c == '\t'; };
  while (!text.empty() && blank(text.back())) text.remove_suffix(1);
  if (pem.size() > 2048 || !text.starts_with(begin) || !text.ends_with(end) || text.size() < begin.size() + end.size()) {
    refuse_public_key();
  }
  std::string base64;
  for (char c : text.substr(begin.size(), text.size() - begin.size() - end.size())) {
    if (!blank(c)) base64 += c;
  }
  if (base64.empty() || base64.size() % 4 != 0) refuse_public_key();
  std::vector<std::byte> der(base64.size() / 4 * 3);
  const int size = EVP_DecodeBlock(openssl_out(der), reinterpret_cast<const unsigned char*>(base64.data()),
                                   static_cast<int>(base64.size()));
  if (size < 0) refuse_public_key();
  const auto padding = static_cast<std::size_t>(std::count(base64.end() - 2, base64.end(), '='));
  der.resize(static_cast<std::size_t>(size) - padding);
  return PublicKey(std::move(der));
}

std::string PublicKey::pem() const {
  std::string base64(4 * ((der_.size() + 2) / 3) + 1, '\0');
  const int size = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(base64.data()), openssl_in(der_),
                                   static_cast<int>(der_.size()));
  base64.resize(static_cast<std::size_t>(size));
  std::string text = "-----BEGIN PUBLIC KEY-----\n";
  for (std::size_t i = 0; i < base64.size(); i += 64) {
    text += base64.substr(i, 64);
    text += '\n';
  }
  return text += "-----END PUBLIC KEY-----\n";
}

bool verify_without_context(const PublicKey& key, std::span<const std::byte> message,
                            std::span<const std::byte> signature) {
  const OpensslSource source = openssl_source();
  const Owned<EVP_MD_CTX> context(EVP_MD_CTX_new());
  if (!context || EVP_DigestVerifyInit_ex(context.get(), nullptr, digest_of(key.algorithm_), source.context,
                                          source.properties, key.key_.get(), nullptr) != 1) {
    fail("start a verification");
  }
  const int result = EVP_DigestVerify(context.get(), openssl_in(signature), signature.size(), openssl_in(message),
                                      message.size());
  ERR_clear_error();
  return result == 1;
}

bool PublicKey::verify(const std::string& context, std::span<const std::byte> message,
                       std::span<const std::byte> signature) const {
  return verify_without_context(*this, framed(context, message), signature);
}

SigningKey::SigningKey(std::shared_ptr<EVP_PKEY> key) : key_(std::move(key)), public_key_(spki_of(key_.get())) {}

SigningKey SigningKey::generate(SignatureAlgorithm algorithm) {
  refuse_unapproved(algorithm);
  const OpensslSource source = openssl_source();
  EVP_PKEY* key = algorithm == SignatureAlgorithm::ed25519
                      ? EVP_PKEY_Q_keygen(source.context, source.properties, "ED25519")
                      : EVP_PKEY_Q_keygen(source.context, source.properties, "EC", "P-384");
  if (key == nullptr) fail("generate a signing key");
  return SigningKey(std::shared_ptr<EVP_PKEY>(key, EVP_PKEY_free));
}

std::vector<std::byte> SigningKey::sign(const std::string& context, std::span<const std::byte> message) const {
  const std::vector<std::byte> bytes = framed(context, message);
  const OpensslSource source = openssl_source();
  const Owned<EVP_MD_CTX> state(EVP_MD_CTX_new());
  std::size_t size = 0;
  if (!state ||
      EVP_DigestSignInit_ex(state.get(), nullptr, digest_of(public_key_.algorithm()), source.context, source.properties,
                            key_.get(), nullptr) != 1 ||
      EVP_DigestSign(state.get(), nullptr, &size, openssl_in(bytes), bytes.size()) != 1) {
    fail("start a signature");
  }
  std::vector<std::byte> signature(size);
  if (EVP_DigestSign(state.get(), openssl_out(signature), &size, openssl_in(bytes), bytes.size()) != 1) fail("sign");
  signature.resize(size);
  return signature;
}

}  // namespace hushgrad
