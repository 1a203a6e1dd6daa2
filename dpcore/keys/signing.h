// Identities that sign: ECDSA over P-384 with SHA-384, and Ed25519 outside FIPS mode.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "dpcore/keys/secret_bytes.h"

struct evp_pkey_st;  // EVP_PKEY of OpenSSL

namespace hushgrad {

enum class SignatureAlgorithm {
  ecdsa_p384_sha384,  // FIPS 186-5; signatures in DER, 102..104 bytes as a rule
  ed25519,            // RFC 8032; 64 bytes; refused in FIPS mode
};

/// "ecdsa-p384-sha384" or "ed25519".
const char* to_string(SignatureAlgorithm algorithm);
/// InvalidArgument for any other name.
SignatureAlgorithm signature_algorithm(const std::string& name);

/// Throws InvalidArgument unless `context` is 1..64 characters of a-z, 0-9, space and "-_./".
void check_signature_context(const std::string& context);

/// A public key, and by its id the identity of a person, a run or a keyring. A value.
///
/// What is signed is "hushgrad signature 1", a zero byte, the context, a zero byte, the message: a signature that was
/// made for one purpose never passes for another.
class PublicKey {
 public:
  /// Reads one "PUBLIC KEY" block (SubjectPublicKeyInfo, RFC 5480 named curve with an uncompressed point, or RFC 8410).
  /// InvalidArgument for anything else: other algorithms and curves, compressed or invalid points, text around it,
  /// or Ed25519 in FIPS mode.
  static PublicKey from_pem(const std::string& pem);

  /// The same key as text; the same text for the same key, whoever wrote it.
  std::string pem() const;
  /// The first 32 lower-case hexadecimal digits of SHA-384 over the SubjectPublicKeyInfo in DER.
  const std::string& id() const { return id_; }
  SignatureAlgorithm algorithm() const { return algorithm_; }

  /// Whether `signature` was made by this key for exactly this context and message. False for every malformed
  /// signature. InvalidArgument for a bad context, IoError when OpenSSL fails.
  bool verify(const std::string& context, std::span<const std::byte> message,
              std::span<const std::byte> signature) const;

  bool operator==(const PublicKey& other) const { return der_ == other.der_; }

 private:
  friend class SigningKey;
  friend bool verify_without_context(const PublicKey& key, std::span<const std::byte> message,
                                     std::span<const std::byte> signature);
  explicit PublicKey(std::vector<std::byte> der);

  std::vector<std::byte> der_;
  std::string id_;
  SignatureAlgorithm algorithm_;
  std::shared_ptr<evp_pkey_st> key_;
};

/// For published test vectors only: nothing of hushgrad signs a bare message.
bool verify_without_context(const PublicKey& key, std::span<const std::byte> message,
                            std::span<const std::byte> signature);

/// A private key. Move-only; lives in OpenSSL's memory, which is wiped on release. Nothing prints or returns it.
/// Errors of all: IoError when OpenSSL or the operating system fails.
class SigningKey {
 public:
  /// A new key. InvalidArgument for Ed25519 in FIPS mode.
  static SigningKey generate(SignatureAlgorithm algorithm = SignatureAlgorithm::ecdsa_p384_sha384);
  /// Reads a PKCS#8 file that only its owner may read. KeyError when it is missing, open to others, malformed, of
  /// another algorithm, or does not open with `passphrase`; a passphrase for a file that has none is refused too.
  static SigningKey load(const std::string& path, std::optional<std::span<const std::byte>> passphrase = {});
  /// From the PKCS#8 DER of another store (a keyring); same errors as load().
  static SigningKey from_pkcs8(std::span<const std::byte> der);

  SigningKey(SigningKey&&) noexcept = default;
  SigningKey& operator=(SigningKey&&) noexcept = default;

  /// Writes PKCS#8 in PEM, mode 0600, durably, where nothing stands yet. With a passphrase (1..1024 bytes) it is
  /// encrypted by PBES2: AES-256-CBC under scrypt (N 2^14, r 8, p 5), or in FIPS mode PBKDF2 with HMAC-SHA-256 and
  /// 600,000 rounds.
  void save(const std::string& path, std::optional<std::span<const std::byte>> passphrase = {}) const;
  /// PKCS#8 in DER, in clear, for a store that encrypts it.
  SecretBytes pkcs8() const;

  const PublicKey& public_key() const { return public_key_; }
  /// InvalidArgument for a bad context.
  std::vector<std::byte> sign(const std::string& context, std::span<const std::byte> message) const;

 private:
  explicit SigningKey(std::shared_ptr<evp_pkey_st> key);

  std::shared_ptr<evp_pkey_st> key_;
  PublicKey public_key_;
};

}  // namespace hushgrad
