// The root of a keyring: the one secret from which all others are opened.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <span>
#include <vector>

#include "dpcore/keys/keyring_model.h"
#include "dpcore/keys/secret_bytes.h"

namespace hushgrad {

/// 32 random bytes, and what they wrap. Used only through HKDF, each purpose with its label.
class RootKey {
 public:
  static RootKey random() { return RootKey(SecretBytes::random(32)); }
  /// InvalidArgument unless 32 bytes.
  explicit RootKey(SecretBytes secret);

  /// AES-256-KWP under the root.
  std::vector<std::byte> wrap(std::span<const std::byte> key) const;
  /// KeyError when not intact.
  SecretBytes unwrap(std::span<const std::byte> wrapped) const;
  /// HMAC-SHA-384 over a keyring's text.
  std::array<std::byte, 48> mac(std::span<const std::byte> text) const;

  std::span<const std::byte> secret() const { return secret_.bytes(); }

 private:
  SecretBytes derived(const char* label, std::size_t size) const;
  SecretBytes secret_;
};

/// The key that wraps the root under a protection: Argon2id, in older keyrings scrypt (r 8, p 1), or in FIPS mode PBKDF2 with
/// HMAC-SHA-384 of the passphrase, joined with machine_secret() for a machine-bound keyring.
/// KeyError when the protection wants a passphrase and none is given, or the other way round;
/// Unsupported for Argon2id in FIPS mode.
SecretBytes protection_key(const KeyringProtection& protection, const std::optional<std::span<const std::byte>>& passphrase,
                           bool make_machine_secret);

/// A protection with a fresh salt and the present costs.
KeyringProtection new_protection(bool passphrase, bool machine);

}  // namespace hushgrad
