// Spelling of bytes: as text, as hexadecimal digits, as big-endian integers, as OpenSSL wants them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace hushgrad {

inline std::span<const std::byte> text_bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

inline unsigned char* openssl_out(std::span<std::byte> bytes) {
  return reinterpret_cast<unsigned char*>(bytes.data());
}
inline const unsigned char* openssl_in(std::span<const std::byte> bytes) {
  return reinterpret_cast<const unsigned char*>(bytes.data());
}

inline void append(std::vector<std::byte>& out, std::span<const std::byte> bytes) {
  out.reserve(out.size() + bytes.size());
  for (std::byte byte : bytes) out.push_back(byte);
}

/// Appends the low `bytes` (1..8) bytes of `value`, most significant first.
inline void append_big_endian(std::vector<std::byte>& out, std::uint64_t value, int bytes) {
  for (int shift = 8 * (bytes - 1); shift >= 0; shift -= 8) {
    out.push_back(static_cast<std::byte>(value >> shift));
  }
}

/// The value of 0..8 bytes, most significant first.
inline std::uint64_t read_big_endian(std::span<const std::byte> bytes) {
  std::uint64_t value = 0;
  for (std::byte byte : bytes) value = value << 8 | std::to_integer<std::uint64_t>(byte);
  return value;
}

inline char hex_digit(unsigned value) {
  return static_cast<char>(value < 10 ? '0' + value : 'a' + value - 10);
}

/// 0..15, or -1 for anything but a lower-case hexadecimal digit.
inline int hex_value(char digit) {
  if (digit >= '0' && digit <= '9') return digit - '0';
  if (digit >= 'a' && digit <= 'f') return digit - 'a' + 10;
  return -1;
}

/// Lower case. Not for secrets: the string is not wiped.
inline std::string to_hex(std::span<const std::byte> bytes) {
  std::string text;
  for (std::byte byte : bytes) {
    text += hex_digit(std::to_integer<unsigned>(byte) >> 4);
    text += hex_digit(std::to_integer<unsigned>(byte) & 15);
  }
  return text;
}

inline bool is_hex(std::string_view text, std::size_t bytes) {
  return text.size() == 2 * bytes &&
         std::all_of(text.begin(), text.end(), [](char c) { return hex_value(c) >= 0; });
}

/// Fills `out` from 2 * out.size() digits that is_hex() has seen.
inline void from_hex(std::string_view digits, std::span<std::byte> out) {
  for (std::size_t i = 0; i < out.size(); ++i) {
    out[i] = static_cast<std::byte>(hex_value(digits[2 * i]) << 4 | hex_value(digits[2 * i + 1]));
  }
}

}  // namespace hushgrad
