// FLOE, Fast Lightweight Online Encryption: https://c2sp.org/FLOE (ePrint 2025/2275), with AES-256-GCM,
// HKDF-Expand-SHA-384 and 32-byte IVs. Test vectors: Snowflake-Labs/floe-specification.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "dpcore/keys/secret_bytes.h"

namespace hushgrad {

/// One FLOE message, to encrypt or to decrypt: a 74-byte header and numbered segments. Every segment but the
/// last is exactly segment_bytes long; a segment is 32 bytes longer than its plaintext.
/// Guarantees: authenticated encryption that binds each segment to the key, the associated data, its position
/// and whether it is the last; the header commits to the key. A fresh random IV a message and a segment, a
/// fresh AES key every 2^20 segments. Segments may be handled in any order and from several threads at once.
/// The caller must encrypt each position once, end with exactly one final segment, and when decrypting must
/// take position, `is_final` and the number of segments from something authenticated, never from the segment
/// itself: otherwise cuts go unnoticed and the commitment is lost.
/// Errors: InvalidArgument (lengths), SealError (does not decrypt), IoError (OpenSSL).
class Floe {
 public:
  static constexpr std::size_t kKeyBytes = 32;
  static constexpr std::size_t kIvBytes = 32;
  static constexpr std::size_t kHeaderBytes = 10 + kIvBytes + 32;  // parameters, IV, header tag
  static constexpr std::size_t kSegmentOverhead = 4 + 12 + 16;     // length, IV, tag
  static constexpr std::uint64_t kMaxSegments = std::uint64_t{1} << 40;
  static constexpr unsigned kRotationBits = 20;  // 2^20 segments share an AES key
  static constexpr std::size_t kMaxAssociatedData = 512;

  /// `key`: 32 uniform bytes. `segment_bytes`: length of an encrypted segment, 33 .. 2^31 - 1.
  static Floe start_encryption(std::span<const std::byte> key, std::span<const std::byte> associated_data,
                               std::uint32_t segment_bytes);
  /// SealError unless `header` was made with the same key, associated data and segment length.
  static Floe start_decryption(std::span<const std::byte> key, std::span<const std::byte> associated_data,
                               std::uint32_t segment_bytes, std::span<const std::byte> header);

  const std::array<std::byte, kHeaderBytes>& header() const { return header_; }
  std::size_t plaintext_bytes() const { return segment_bytes_ - kSegmentOverhead; }

  /// Encrypts plaintext_bytes() bytes (0..plaintext_bytes() when final) into `segment`, 32 bytes longer.
  void encrypt_segment(std::uint64_t position, bool is_final, std::span<const std::byte> plaintext,
                       std::span<std::byte> segment) const;
  /// Decrypts into `plaintext`, 32 bytes shorter than `segment`. On SealError `plaintext` is zeroed or
  /// untouched; until the call returns it must not be shown to anybody.
  void decrypt_segment(std::uint64_t position, bool is_final, std::span<const std::byte> segment,
                       std::span<std::byte> plaintext) const;

 private:
  friend struct InsecureFloeForTests;  // fixed IVs and fast key rotation, for published vectors; defined in
                                       // tests only

  Floe(std::span<const std::byte> key, std::span<const std::byte> associated_data,
       std::uint32_t segment_bytes, std::span<const std::byte> iv);
  void derive(std::span<const std::byte> key, std::span<const std::byte> purpose,
              std::span<std::byte> out) const;
  SecretBytes segment_key(std::uint64_t position) const;
  void check_segment(std::uint64_t position, bool is_final, std::size_t plaintext, std::size_t segment) const;
  void encrypt_segment_with_iv(std::uint64_t position, bool is_final, std::span<const std::byte> iv,
                               std::span<const std::byte> plaintext, std::span<std::byte> segment) const;

  std::uint32_t segment_bytes_;
  unsigned rotation_bits_ = kRotationBits;
  std::vector<std::byte> associated_data_;
  std::array<std::byte, kHeaderBytes> header_;
  SecretBytes message_key_;
};

/// A whole message: header and all segments. For data that fits in memory.
std::vector<std::byte> floe_encrypt(std::span<const std::byte> key,
                                    std::span<const std::byte> associated_data, std::uint32_t segment_bytes,
                                    std::span<const std::byte> plaintext);
/// The plaintext of a whole message. SealError when anything in it was altered, cut, added or moved.
std::vector<std::byte> floe_decrypt(std::span<const std::byte> key,
                                    std::span<const std::byte> associated_data, std::uint32_t segment_bytes,
                                    std::span<const std::byte> message);

}  // namespace hushgrad
