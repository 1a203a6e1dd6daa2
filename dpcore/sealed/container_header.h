// The parts of a sealed file around its segments: prefix, core, key slots, FLOE header, trailer.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "dpcore/keys/durable_file.h"
#include "dpcore/keys/kdf.h"
#include "dpcore/keys/key_provider.h"
#include "dpcore/sealed/floe.h"
#include "dpcore/sealed/key_slots.h"
#include "dpcore/sealed/manifest.h"

namespace hushgrad {

/// Prefix and core as they stand at the head of the file. InvalidArgument for lengths outside the format.
std::vector<std::byte> encode_prefix_and_core(std::uint64_t payload_bytes, const std::string& core);
/// The payload's key, and what binds every segment to prefix and core, but not to the key slots: the data key may be
/// wrapped anew without re-encryption.
SecretBytes payload_key(const SecretBytes& data_key);
std::vector<std::byte> payload_context(const Sha384& core_digest);

/// A header that is well formed, not yet authentic.
struct ContainerHeader {
  Descriptor file{-1};
  std::uint64_t payload_bytes = 0;
  std::string core{};
  Sha384 core_digest{};  // over prefix and core
  KeySlots slots{};
  std::array<std::byte, Floe::kHeaderBytes> floe_header{};
  std::array<std::byte, ContainerFormat::kTrailerBytes> trailer_bytes{};
  Trailer trailer{};

  /// Refuses what this version does not know before anything else is read; then lengths, then form. `flags` are added to
  /// those of open(2). SealError, IoError, InvalidArgument for a path with NUL.
  static ContainerHeader open(const std::string& path, int flags = 0 /* O_RDONLY */);

  std::uint64_t segments() const { return ContainerFormat::segments(payload_bytes); }
  std::uint64_t state_offset() const { return ContainerFormat::kPrefixBytes + core.size(); }
  std::uint64_t slot_offset(std::size_t index) const { return state_offset() + 1 + index * ContainerFormat::kSlotBytes; }
  std::uint64_t body_offset() const {
    return state_offset() + ContainerFormat::kSlotAreaBytes + Floe::kHeaderBytes;
  }
  std::uint64_t segment_offset(std::uint64_t position) const {
    return body_offset() + position * ContainerFormat::kSegmentBytes;
  }
  std::size_t segment_bytes(std::uint64_t position) const {
    return ContainerFormat::plaintext_of(position, payload_bytes) + Floe::kSegmentOverhead;
  }
  std::uint64_t table_offset() const {
    return body_offset() + payload_bytes + segments() * Floe::kSegmentOverhead;
  }
  Manifest manifest() const { return {core_digest, floe_header, segments(), trailer.table_digest}; }
  /// The digest of every segment, after their own digest fits the trailer. SealError.
  std::vector<SegmentDigest> read_table(const std::string& path) const;

  /// The slot in use. SealError when neither is, or one is damaged though no re-wrap is going on.
  const KeySlot& active_slot() const;
  /// Reads the slots again, as a re-wrap may have changed them.
  void read_slots(const std::string& path);
};

/// Unwraps the data key and authenticates slot and trailer with it. KeyError, SealError.
SecretBytes authenticate(const ContainerHeader& header, const KeyProvider& keys);

}  // namespace hushgrad
