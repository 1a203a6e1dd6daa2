// The key stream of AesCtr at the speed that noise needs.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "dpcore/random/aes_ctr.h"

namespace hushgrad {

/// The same bytes as AesCtr for the same key and counter. Processors with AES instructions on 512-bit or 256-bit registers
/// (VAES) compute sixteen blocks at once, several times as fast as OpenSSL 3.0 does; all others use OpenSSL. For noise
/// only: batches, keys and seeds come from OpenSSL everywhere. Running time does not depend on key or counter: the
/// instructions have no tables. Not thread-safe; wiped on destruction. Errors: as AesCtr.
class KeyStream {
 public:
  /// How the bytes are computed.
  enum class Cipher { vaes_512, vaes_256, openssl };
  /// Those that this processor has, the fastest first.
  static const std::vector<Cipher>& ciphers();
  static std::string_view name_of(Cipher cipher);

  KeyStream(AesCtr::Key key, AesCtr::Counter counter) : KeyStream(key, counter, ciphers().front()) {}
  /// cipher: one of ciphers().
  KeyStream(AesCtr::Key key, AesCtr::Counter counter, Cipher cipher);
  ~KeyStream();
  KeyStream(KeyStream&&) = delete;
  KeyStream& operator=(KeyStream&&) = delete;

  /// The next out.size() bytes. Empty is fine.
  void fill(std::span<std::byte> out);
  /// Starts over at another counter.
  void seek(AesCtr::Counter counter);

 private:
  struct RoundKeys {
    alignas(16) std::array<std::byte, 15 * 16> bytes;
  };
  static constexpr std::size_t kChunk = 256;  // sixteen blocks

  void generate(std::byte* out, std::size_t chunks);

  Cipher cipher_;
  std::optional<AesCtr> portable_;
  RoundKeys keys_;
  std::uint64_t high_ = 0, low_ = 0;  // the counter of the next block
  alignas(64) std::array<std::byte, kChunk> buffer_;
  std::size_t used_ = kChunk;  // bytes of buffer_ already handed out
};

}  // namespace hushgrad
