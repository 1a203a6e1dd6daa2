// Argon2id (RFC 9106) through libargon2: OpenSSL has it from version 3.2 on only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace hushgrad {

/// What one derivation costs. It stands in the file that it protects, which an attacker may have written: acceptable()
/// bounds it from both sides.
struct Argon2Cost {
  std::uint64_t memory_kib = 0, passes = 0, lanes = 0;

  static constexpr std::uint64_t kMinMemoryKib = 1 << 14, kMaxMemoryKib = 1 << 21;  // 16 MiB .. 2 GiB, the largest of RFC 9106
  static constexpr std::uint64_t kMaxPasses = 64, kMaxLanes = 16;
  static constexpr std::uint64_t kMaxWorkKib = std::uint64_t{1} << 23;  // memory times passes: some seconds
  constexpr bool acceptable() const {
    return memory_kib >= kMinMemoryKib && memory_kib <= kMaxMemoryKib && passes >= 1 && passes <= kMaxPasses && lanes >= 1 &&
           lanes <= kMaxLanes && memory_kib * passes <= kMaxWorkKib;
  }
};

/// RFC 9106 section 4, second recommended option: 64 MiB, 3 passes, 4 lanes, for a salt of 16 and a result of 32 bytes.
inline constexpr Argon2Cost kArgon2Cost{1 << 16, 3, 4};

/// Fills `out` (4 bytes or more) from a password and a salt of at least 8 bytes; `secret` and `associated_data` as in the RFC.
/// The memory it works in is kept out of core dumps and wiped. Costs are those of the caller, who has them checked.
/// InvalidArgument (lengths, costs that Argon2 does not have), IoError (memory, threads), Unsupported in FIPS mode, which
/// does not approve of Argon2id: nothing is used in its place.
void argon2id(std::span<const std::byte> password, std::span<const std::byte> salt, const Argon2Cost& cost,
              std::span<std::byte> out, std::span<const std::byte> secret = {},
              std::span<const std::byte> associated_data = {});

}  // namespace hushgrad
