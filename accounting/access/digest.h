// Small conversions of texts and bytes that records are made of.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace hushgrad {

/// SHA-384 as 96 lower-case hex digits.
std::string hex_digest(std::string_view text);

std::span<const std::byte> bytes_of(std::string_view text);
std::string hex_of(std::span<const std::byte> bytes);
/// Empty for a text that is no lower-case hexadecimal.
std::vector<std::byte> bytes_from_hex(std::string_view text);

}  // namespace hushgrad
