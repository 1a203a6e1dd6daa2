// What a process and its PKCS#11 helper say to each other: lists of byte strings over a socket.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <sys/socket.h>
#include <unistd.h>

namespace hushgrad::pkcs11 {

/// A request is {operation, arguments ...}, an answer {"ok", results ...} or {kind of error, text}. Kinds: "key", "seal",
/// "device", "pin". Operations:
///   open {module, token label, PIN}      list {} -> id, label, ... for each key
///   wrap {id, 32 bytes} -> 40 bytes      unwrap {id, 40 bytes} -> 32 bytes
///   generate {id, label}                 update {id, label, "1"/"0" may wrap, "1"/"0" may unwrap}    destroy {id}
using Message = std::vector<std::string>;

inline constexpr std::size_t kMaxMessage = 4 * 1024 * 1024;
inline constexpr int kHelperSocket = 3;

inline void put_number(std::string& out, std::size_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) out += static_cast<char>(value >> shift);
}

inline std::size_t number_at(const std::string& text, std::size_t offset) {
  std::size_t value = 0;
  for (std::size_t i = 0; i < 4; ++i) value = value << 8 | static_cast<unsigned char>(text[offset + i]);
  return value;
}

/// Length of the rest, then each string with its length.
inline std::string encoded(const Message& message) {
  std::string body;
  std::size_t size = 0;
  for (const std::string& part : message) size += part.size() + 4;
  body.reserve(size + 4);  // no copy of a key is left behind by growing
  put_number(body, size);
  for (const std::string& part : message) {
    put_number(body, part.size());
    body += part;
  }
  return body;
}

/// False when malformed.
inline bool decode(const std::string& body, Message& message) {
  message.clear();
  for (std::size_t at = 0; at < body.size();) {
    if (body.size() - at < 4) return false;
    const std::size_t size = number_at(body, at);
    if (size > body.size() - at - 4) return false;
    message.push_back(body.substr(at + 4, size));
    at += 4 + size;
  }
  return !message.empty();
}

/// Overwrites what may be secret.
inline void wipe(std::string& text) {
  volatile char* bytes = text.data();
  for (std::size_t i = 0; i < text.size(); ++i) bytes[i] = 0;
}
inline void wipe(Message& message) {
  for (std::string& part : message) wipe(part);
}

}  // namespace hushgrad::pkcs11
