// The hash family of sealed files: SHA-384, HMAC-SHA-384 and HKDF-Expand-SHA-384, all through OpenSSL's EVP
// layer.
#pragma once

#include <array>
#include <cstddef>
#include <span>

namespace hushgrad {

using Sha384 = std::array<std::byte, 48>;

/// FIPS 180-4. Empty input is allowed. IoError when OpenSSL fails.
Sha384 sha384(std::span<const std::byte> data);

/// FIPS 198-1. Any key length >= 1; empty data is allowed. IoError when OpenSSL fails.
Sha384 hmac_sha384(std::span<const std::byte> key, std::span<const std::byte> data);

/// RFC 5869 section 2.3: fills `out` (1..255*48 bytes) from a pseudorandom key that is already uniform; no
/// extract step. `info` holds at most 1024 bytes, within what OpenSSL 3.0 takes. InvalidArgument otherwise,
/// IoError when OpenSSL fails.
void hkdf_expand_sha384(std::span<const std::byte> key, std::span<const std::byte> info,
                        std::span<std::byte> out);

/// Compares in a time that depends on the lengths only.
bool equal_in_constant_time(std::span<const std::byte> a, std::span<const std::byte> b);

}  // namespace hushgrad
