// The container of a sealed file: an authenticated header with one opaque core text, and an encrypted payload
// that can be read at any place. What core and payload mean is sealed_file.h's business. Format:
// docs/formats/sealed_file.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "dpcore/keys/durable_file.h"
#include "dpcore/keys/keyring.h"
#include "dpcore/keys/secret_bytes.h"
#include "dpcore/sealed/floe.h"

namespace hushgrad {

/// The numbers of format version 1. All integers in the file are big-endian.
///   magic 8 | version 2 | suite 2 | flags 4 | payload_bytes 8 | core_bytes 4 | core
///   | key id 16 | wrapped data key 40 | HMAC-SHA-384 48 over all before it | FLOE header 74 | FLOE segments
struct ContainerFormat {
  static constexpr char kMagic[] = "HGSEALED";  // 8 bytes in the file
  static constexpr std::uint64_t kVersion = 1;
  // AES-256-KWP, HMAC-SHA-384, HKDF-Expand-SHA-384, FLOE with AES-256-GCM
  static constexpr std::uint64_t kSuite = 1;
  static constexpr std::uint64_t kFlags = 0;
  static constexpr std::size_t kPrefixBytes = 28;
  static constexpr std::size_t kMaxCoreBytes = 1024 * 1024;
  static constexpr std::size_t kKeyIdBytes = 16;
  static constexpr std::size_t kWrappedKeyBytes = 40;
  static constexpr std::size_t kMacBytes = 48;
  static constexpr std::uint32_t kSegmentBytes = 1024 * 1024;
  static constexpr std::uint64_t kMaxSegments = std::uint64_t{1} << 32;
};

/// Seals `chunks`, one after the other, as the payload (at least one byte) beside `core` (at most 1 MiB),
/// under the active key of `dataset`. Writes as DurableFile does; memory about 2 MiB a thread.
/// Errors: InvalidArgument (sizes), KeyError (no key), IoError.
void write_container(const std::string& path, const std::string& dataset, const std::string& core,
                     std::span<const std::span<const std::byte>> chunks, const Keyring& keyring,
                     IfExists if_exists);

/// An open container whose header is authentic. Safe for concurrent reads.
class Container {
 public:
  /// Checks magic, version, suite, flags and all lengths, then unwraps the data key, authenticates the
  /// header, and only then believes it. SealError, KeyError, IoError.
  Container(const std::string& path, const Keyring& keyring);
  /// The core text of a file whose header is well formed, read without a key. SealError, IoError.
  static std::string unauthenticated_core(const std::string& path);

  const std::string& core() const { return core_; }
  /// The dataset whose key sealed the file, as the keyring knows it.
  const std::string& dataset() const { return dataset_; }
  std::uint64_t payload_bytes() const { return payload_bytes_; }

  /// Decrypts payload bytes [offset, offset + out.size()); only authenticated bytes reach `out`, and on error
  /// it is zeroed. InvalidArgument when the range leaves the payload, SealError, IoError.
  void read(std::uint64_t offset, std::span<std::byte> out) const;
  /// Authenticates every segment. SealError, IoError.
  void verify_all() const;

 private:
  struct Header;
  static constexpr std::uint64_t kNothing = UINT64_MAX;
  // The plaintext of one segment. Neighbouring small tensors share a segment; keeping the last one spares its
  // decryption.
  struct Cache {
    std::mutex mutex;
    std::uint64_t position = kNothing;
    SecretBytes plaintext{0};
  };

  Container(const std::string& path, const Keyring& keyring, Header header);
  void decrypt(std::uint64_t position, std::span<std::byte> segment, std::span<std::byte> plaintext) const;
  void read_part(std::uint64_t position, std::size_t from, std::span<std::byte> out) const;
  void read_segments(std::uint64_t offset, std::span<std::byte> out) const;

  std::string path_;
  Descriptor file_;
  std::uint64_t body_offset_;
  std::uint64_t payload_bytes_;
  std::string core_;
  std::string dataset_;
  Floe floe_;
  mutable Cache cache_;
};

}  // namespace hushgrad
