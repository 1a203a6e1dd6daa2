#include "dpcore/keys/root_key.h"

#include <algorithm>
#include <array>
#include <memory>
#include <utility>

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>

#include "dpcore/error.h"
#include "dpcore/keys/argon2id.h"
#include "dpcore/keys/bytes.h"
#include "dpcore/keys/fips.h"
#include "dpcore/keys/kdf.h"
#include "dpcore/keys/key_wrap.h"
#include "dpcore/keys/state_folder.h"

namespace hushgrad {
namespace {

constexpr std::size_t kKeyBytes = 32;
constexpr std::size_t kMaxPassphrase = 1024;
constexpr std::uint64_t kPbkdf2Rounds = 600'000;

using Passphrase = std::optional<std::span<const std::byte>>;

[[noreturn]] void fail() {
  ERR_clear_error();
  throw IoError("[keyring] Expected OpenSSL to derive a key from the passphrase, received an error.");
}

struct Free {
  void operator()(EVP_KDF_CTX* context) const { EVP_KDF_CTX_free(context); }
};

void derive(EVP_KDF* kdf, const OSSL_PARAM* parameters, std::span<std::byte> out) {
  const std::unique_ptr<EVP_KDF_CTX, Free> context(EVP_KDF_CTX_new(kdf));
  if (!context || EVP_KDF_derive(context.get(), openssl_out(out), out.size(), parameters) != 1) fail();
}

OSSL_PARAM octets(const char* name, std::span<const std::byte> bytes) {
  return OSSL_PARAM_construct_octet_string(name, const_cast<std::byte*>(bytes.data()), bytes.size());
}

void scrypt(std::span<const std::byte> passphrase, std::span<const std::byte> salt, std::uint64_t cost,
            std::span<std::byte> out) {
  static Fetched<EVP_KDF> kdf(EVP_KDF_fetch, "SCRYPT");
  std::uint32_t r = 8, p = 1;
  std::uint64_t memory = 1024 * cost + (std::uint64_t{1} << 20);
  const OSSL_PARAM parameters[] = {octets(OSSL_KDF_PARAM_PASSWORD, passphrase),
                                   octets(OSSL_KDF_PARAM_SALT, salt),
                                   OSSL_PARAM_construct_uint64(OSSL_KDF_PARAM_SCRYPT_N, &cost),
                                   OSSL_PARAM_construct_uint32(OSSL_KDF_PARAM_SCRYPT_R, &r),
                                   OSSL_PARAM_construct_uint32(OSSL_KDF_PARAM_SCRYPT_P, &p),
                                   OSSL_PARAM_construct_uint64(OSSL_KDF_PARAM_SCRYPT_MAXMEM, &memory),
                                   OSSL_PARAM_construct_end()};
  derive(kdf.get(), parameters, out);
}

void pbkdf2(std::span<const std::byte> passphrase, std::span<const std::byte> salt, std::uint64_t rounds,
            std::span<std::byte> out) {
  static Fetched<EVP_KDF> kdf(EVP_KDF_fetch, "PBKDF2");
  char digest[] = "SHA384";
  const OSSL_PARAM parameters[] = {octets(OSSL_KDF_PARAM_PASSWORD, passphrase), octets(OSSL_KDF_PARAM_SALT, salt),
                                   OSSL_PARAM_construct_uint64(OSSL_KDF_PARAM_ITER, &rounds),
                                   OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
                                   OSSL_PARAM_construct_end()};
  derive(kdf.get(), parameters, out);
}

void check_passphrase(const KeyringProtection& protection, const Passphrase& passphrase) {
  if (protection.kdf.empty() == passphrase.has_value()) {
    throw KeyError(protection.kdf.empty()
                       ? "[keyring] Expected no passphrase for this keyring, received one. Open it without."
                       : "[keyring] Expected the passphrase of this keyring, received none. Give it in a file or by "
                         "prompt.");
  }
  if (passphrase && (passphrase->empty() || passphrase->size() > kMaxPassphrase)) {
    throw InvalidArgument("[keyring] Expected a passphrase of 1..1024 bytes, received another.");
  }
}

}  // namespace

RootKey::RootKey(SecretBytes secret) : secret_(std::move(secret)) {
  if (secret_.size() != kKeyBytes) throw InvalidArgument("[keyring] Expected a root key of 32 bytes, received another.");
}

SecretBytes RootKey::derived(const char* label, std::size_t size) const {
  SecretBytes key(size);
  hkdf_expand_sha384(secret_.bytes(), text_bytes(label), key.bytes());
  return key;
}

std::vector<std::byte> RootKey::wrap(std::span<const std::byte> key) const {
  return aes256_kwp_wrap(derived("hushgrad keyring 2 wrap", kKeyBytes).bytes(), key);
}

SecretBytes RootKey::unwrap(std::span<const std::byte> wrapped) const {
  auto key = aes256_kwp_unwrap(derived("hushgrad keyring 2 wrap", kKeyBytes).bytes(), wrapped);
  if (!key) throw KeyError("[keyring] Expected keys wrapped under the root of this keyring, received others.");
  return std::move(*key);
}

std::array<std::byte, 48> RootKey::mac(std::span<const std::byte> text) const {
  return hmac_sha384(derived("hushgrad keyring 2 mac", sizeof(Sha384)).bytes(), text);
}

SecretBytes protection_key(const KeyringProtection& protection, const Passphrase& passphrase, bool make_machine_secret) {
  check_passphrase(protection, passphrase);
  std::array<std::byte, 16> salt{};
  if (!protection.salt.empty()) from_hex(protection.salt, salt);
  SecretBytes parts(2 * kKeyBytes);
  const auto from_passphrase = parts.bytes().first(kKeyBytes);
  if (protection.kdf == "argon2id") {
    argon2id(*passphrase, salt, {protection.cost, protection.passes, protection.lanes}, from_passphrase);
  }
  if (protection.kdf == "scrypt") scrypt(*passphrase, salt, protection.cost, from_passphrase);
  if (protection.kdf == "pbkdf2") pbkdf2(*passphrase, salt, protection.cost, from_passphrase);
  if (protection.machine) {
    const SecretBytes machine = machine_secret(make_machine_secret);
    std::copy_n(machine.bytes().begin(), kKeyBytes, parts.bytes().begin() + kKeyBytes);
  }
  const Sha384 extracted = hmac_sha384(salt, parts.bytes());
  SecretBytes key(kKeyBytes);
  hkdf_expand_sha384(extracted, text_bytes("hushgrad keyring 2 protection"), key.bytes());
  return key;
}

KeyringProtection new_protection(bool passphrase, bool machine) {
  KeyringProtection protection;
  protection.machine = machine;
  if (passphrase && fips_mode()) {
    protection.kdf = "pbkdf2";
    protection.cost = kPbkdf2Rounds;
  } else if (passphrase) {
    protection.kdf = "argon2id";
    protection.cost = kArgon2Cost.memory_kib;
    protection.passes = kArgon2Cost.passes;
    protection.lanes = kArgon2Cost.lanes;
  }
  if (protection.wraps_root()) {
    std::array<std::byte, 16> salt;
    fill_random(salt);
    protection.salt = to_hex(salt);
  }
  return protection;
}

}  // namespace hushgrad
