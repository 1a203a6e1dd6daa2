// The key stream of AES-256 in counter mode (NIST SP 800-38A, section 6.5), computed by OpenSSL. The only
// place where random bytes are made of a key; everything above it decides which key and which counter.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <span>

struct evp_cipher_ctx_st;

namespace hushgrad {

/// E(K, counter) || E(K, counter + 1) || ...; the counter is a 128-bit big-endian integer that wraps.
/// Not thread-safe: one object a thread. OpenSSL wipes the key schedule when the object is destroyed.
/// Errors: InvalidState if OpenSSL has no AES-256-CTR or refuses to work.
class AesCtr {
 public:
  using Key = std::span<const std::byte, 32>;
  using Counter = std::span<const std::byte, 16>;

  AesCtr(Key key, Counter counter);

  /// The next out.size() bytes of the key stream; a part of a block left over serves the next call. Empty is
  /// fine.
  void fill(std::span<std::byte> out);
  /// Starts over at another counter, and at another key.
  void seek(Counter counter);
  void rekey(Key key, Counter counter);

 private:
  struct Free {
    void operator()(evp_cipher_ctx_st* context) const noexcept;
  };
  std::unique_ptr<evp_cipher_ctx_st, Free> context_;
};

/// Overwrites memory that held key or noise material, in a way the compiler may not drop.
void wipe(std::span<std::byte> secret) noexcept;

}  // namespace hushgrad
