// AES key wrap with padding: deterministic authenticated encryption of keys.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

#include "dpcore/keys/secret_bytes.h"

namespace hushgrad {

/// AES-256-KWP (NIST SP 800-38F section 6.3, RFC 5649) of `key` (1..4096 bytes) under the 32-byte `kek`. The
/// result is 8 bytes longer than `key` rounded up to a multiple of 8. It takes no associated data: who uses
/// it must bind the context by other means. InvalidArgument for other lengths, IoError when OpenSSL fails.
std::vector<std::byte> aes256_kwp_wrap(std::span<const std::byte> kek, std::span<const std::byte> key);

/// The key, or nothing when `wrapped` is not intact under `kek`. InvalidArgument when `kek` is not 32 bytes.
std::optional<SecretBytes> aes256_kwp_unwrap(std::span<const std::byte> kek,
                                             std::span<const std::byte> wrapped);

}  // namespace hushgrad
