// AES-256-GCM (NIST SP 800-38D) with 96-bit IVs and 128-bit tags only.
#pragma once

#include <cstddef>
#include <span>

namespace hushgrad {

inline constexpr std::size_t kGcmKeyBytes = 32;
inline constexpr std::size_t kGcmIvBytes = 12;
inline constexpr std::size_t kGcmTagBytes = 16;

/// Encrypts `plaintext` into `ciphertext` (same length, at most 2^31 - 1) and writes the tag.
/// The caller must never use an IV twice with one key. Empty plaintext and associated data are allowed.
/// InvalidArgument for other lengths, IoError when OpenSSL fails.
void gcm_seal(std::span<const std::byte> key, std::span<const std::byte> iv,
              std::span<const std::byte> associated_data, std::span<const std::byte> plaintext,
              std::span<std::byte> ciphertext, std::span<std::byte> tag);

/// Decrypts into `plaintext`. Returns false, with `plaintext` zeroed, unless key, IV, associated data,
/// ciphertext and tag belong together. Until it returns true, `plaintext` must not be shown to anybody:
/// OpenSSL writes it before it checks.
[[nodiscard]] bool gcm_open(std::span<const std::byte> key, std::span<const std::byte> iv,
                            std::span<const std::byte> associated_data, std::span<const std::byte> ciphertext,
                            std::span<const std::byte> tag, std::span<std::byte> plaintext);

}  // namespace hushgrad
