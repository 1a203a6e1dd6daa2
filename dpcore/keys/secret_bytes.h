// Memory for keys and plaintext: kept out of core dumps and wiped on release; locked where OpenSSL's secure heap has room.
#pragma once

#include <cstddef>
#include <span>

namespace hushgrad {

/// Owns `size` secret bytes. Move-only, so that a key has one owner and no forgotten copies.
/// Guarantee: the bytes are overwritten before the memory is given back. They lie in OpenSSL's secure heap
/// (mlock, MADV_DONTDUMP) while it has room, and otherwise in pages of their own with MADV_DONTDUMP; blocks above 4 KiB are not locked. size 0 is allowed.
/// Errors: IoError when memory or randomness cannot be had.
class SecretBytes {
 public:
  /// `size` zero bytes.
  explicit SecretBytes(std::size_t size);
  /// `size` bytes from the operating-system-seeded private DRBG (SP 800-90A, OpenSSL RAND_priv_bytes).
  static SecretBytes random(std::size_t size);

  SecretBytes(SecretBytes&& other) noexcept;
  SecretBytes& operator=(SecretBytes&& other) noexcept;
  SecretBytes(const SecretBytes&) = delete;
  SecretBytes& operator=(const SecretBytes&) = delete;
  ~SecretBytes();

  std::size_t size() const { return size_; }
  std::span<std::byte> bytes() { return {data_, size_}; }
  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  void release() noexcept;

  std::byte* data_;
  std::size_t size_;
};

/// Fills `out` with random bytes that will be public, such as IVs (OpenSSL RAND_bytes). IoError.
void fill_random(std::span<std::byte> out);

}  // namespace hushgrad
