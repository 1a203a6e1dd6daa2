// The numbers of sealed files, format version 2 (docs/formats/sealed_file.md). All integers are big-endian.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "dpcore/sealed/floe.h"

namespace hushgrad {

///   magic 8 | version 2 | suite 2 | flags 4 | payload bytes 8 | core bytes 4 | core
///   | re-wrap state 1 | key slot A 4096 | key slot B 4096 | FLOE header 74 | segments | digest of each segment 32 | trailer 512
struct ContainerFormat {
  static constexpr char kMagic[] = "HGSEALED";  // 8 bytes in the file
  static constexpr std::uint64_t kVersion = 2;
  // HMAC-SHA-384, HKDF-Expand-SHA-384, FLOE with AES-256-GCM, SHA-256 of segments, SHA-384 of the rest
  static constexpr std::uint64_t kSuite = 1;
  static constexpr std::uint64_t kFlags = 0;
  static constexpr std::size_t kPrefixBytes = 28;
  static constexpr std::size_t kMaxCoreBytes = 1024 * 1024;
  static constexpr std::size_t kSlotBytes = 4096;
  static constexpr std::size_t kSlots = 2;
  static constexpr std::size_t kSlotAreaBytes = 1 + kSlots * kSlotBytes;  // with the state
  static constexpr std::size_t kMacBytes = 48;
  static constexpr std::size_t kLeafBytes = 32;
  static constexpr std::size_t kTrailerBytes = 512;
  static constexpr std::uint32_t kSegmentBytes = 1024 * 1024;
  static constexpr std::uint64_t kMaxSegments = std::uint64_t{1} << 32;

  static constexpr std::size_t kRoom = kSegmentBytes - Floe::kSegmentOverhead;  // plaintext in a full segment
  static constexpr std::uint64_t kMaxPayload = kMaxSegments * kRoom;

  static constexpr std::string_view kPayloadKeyLabel = "hushgrad sealed 2 payload";
  static constexpr std::string_view kSlotKeyLabel = "hushgrad sealed 2 keyblock";
  static constexpr std::string_view kManifestKeyLabel = "hushgrad sealed 2 manifest";
  static constexpr std::string_view kPayloadContext = "hushgrad sealed 2";
  static constexpr std::string_view kSignatureContext = "hushgrad sealed 2 manifest";

  static constexpr std::uint64_t segments(std::uint64_t payload_bytes) {
    return (payload_bytes + kRoom - 1) / kRoom;
  }
  static constexpr std::size_t plaintext_of(std::uint64_t position, std::uint64_t payload_bytes) {
    return static_cast<std::size_t>(std::min<std::uint64_t>(kRoom, payload_bytes - position * kRoom));
  }
};

}  // namespace hushgrad
