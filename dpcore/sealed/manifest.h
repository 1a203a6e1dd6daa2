// The manifest of a sealed file: one digest over all that was sealed, which an identity signs and a ledger keeps. It holds
// also against somebody who has the data key: such a person can make segments whose GCM tags are those of the originals,
// so the manifest rests on digests of the segments, not on their tags.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "dpcore/keys/kdf.h"
#include "dpcore/keys/secret_bytes.h"
#include "dpcore/keys/signing.h"
#include "dpcore/sealed/container_format.h"

namespace hushgrad {

using SegmentDigest = std::array<std::byte, ContainerFormat::kLeafBytes>;

/// SHA-256 of an encrypted segment.
SegmentDigest segment_digest(std::span<const std::byte> segment);

/// What is signed: SHA-384(prefix and core) | FLOE header | number of segments 8 | SHA-384(digests of the segments).
struct Manifest {
  Sha384 core_digest{};
  std::array<std::byte, Floe::kHeaderBytes> floe_header{};
  std::uint64_t segments = 0;
  Sha384 table_digest{};

  std::vector<std::byte> text() const;
  /// 96 hex digits: SHA-384 of text(). Names the file, for ledgers and for the next checkpoint of a run.
  std::string digest() const;
};

///   SHA-384(digests of the segments) 48 | S 2 | signature S | random bytes up to 464 | HMAC-SHA-384 48
/// The HMAC, under a key derived from the data key, covers the manifest's text and bytes 48..464.
struct Trailer {
  static constexpr std::size_t kMaxSignatureBytes = 414;
  Sha384 table_digest{};
  std::vector<std::byte> signature{};  // empty: unsigned
};

std::vector<std::byte> encode_trailer(const Manifest& manifest, std::span<const std::byte> signature,
                                      const SecretBytes& data_key);
/// Well formed, not yet authentic. SealError.
Trailer parse_trailer(std::span<const std::byte> bytes);
/// SealError unless the trailer belongs to this manifest and data key.
void check_trailer(std::span<const std::byte> bytes, const Manifest& manifest, const SecretBytes& data_key);

/// SealError unless `signature` is the writer's over `manifest`.
void check_signature(const Manifest& manifest, std::span<const std::byte> signature, const PublicKey& writer);

}  // namespace hushgrad
