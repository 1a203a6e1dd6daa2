// The container of a sealed file: an authenticated header with one opaque core text, and an encrypted payload
// that can be read at any place. What core and payload mean is sealed_file.h's business. Format:
// docs/formats/sealed_file.md.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "dpcore/keys/durable_file.h"
#include "dpcore/keys/key_provider.h"
#include "dpcore/keys/secret_bytes.h"
#include "dpcore/keys/signing.h"
#include "dpcore/sealed/container_header.h"
#include "dpcore/sealed/floe.h"
#include "dpcore/sealed/manifest.h"
#include "dpcore/sealed/segments.h"

namespace hushgrad {

/// Bytes of the payload that are wanted, and where they go.
struct Destination {
  std::uint64_t offset;
  std::span<std::byte> out;
};

/// An open container whose header and trailer are authentic. Safe for concurrent reads.
class Container {
 public:
  /// Checks magic, version, suite, flags and all lengths, then unwraps the data key, authenticates header and trailer,
  /// and only then believes them. SealError, KeyError, IoError.
  Container(const std::string& path, const KeyProvider& keys);

  const std::string& core() const { return header_.core; }
  /// The dataset whose key sealed the file, as the keyring knows it.
  const std::string& dataset() const { return dataset_; }
  std::uint64_t payload_bytes() const { return header_.payload_bytes; }
  /// Which wrapping of the data key is in use, and what an interrupted re-wrap left beside it.
  const KeySlots& slots() const { return header_.slots; }
  bool is_signed() const { return !header_.trailer.signature.empty(); }
  /// 96 hex digits that name exactly this file: see Manifest. Authentic against everybody without the data key; against
  /// those who have it after verify_manifest(), or where a ledger holds the digest and trust_digest() was called.
  std::string digest() const { return header_.manifest().digest(); }

  /// Believes nothing from here on but what `writer` signed: checks the signature, and the digest of every segment before
  /// its plaintext is handed out. SealError: unsigned, another writer, altered.
  void verify_manifest(const PublicKey& writer);
  /// The same for who has the digest from elsewhere, a ledger: checks each segment against it.
  void trust_digest();

  /// Authenticates every segment and the table now, and believes from here on only segments with the IVs and tags that it
  /// saw: for who must know that all of it is authentic before he uses any of it, and reads it twice rather than holding it.
  /// Against who has the data key only after verify_manifest() or trust_digest(). SealError, IoError.
  void pin(const Progress& progress = {});

  /// Decrypts payload bytes [offset, offset + out.size()); only authenticated bytes reach `out`, and on error
  /// it is zeroed. InvalidArgument when the range leaves the payload, SealError, IoError.
  void read(std::uint64_t offset, std::span<std::byte> out) const;
  /// Many ranges, in order of offset and without overlap, in one pass over the segments that hold them. On error all of
  /// them are zeroed.
  void read(std::span<const Destination> wanted, int threads = 0, const Progress& progress = {}) const;
  /// The table of the segments' digests is the one that was sealed. SealError.
  void verify_table() const { header_.read_table(path_); }
  /// Authenticates every segment, and the table of their digests. SealError, IoError.
  void verify_all(const Progress& progress = {}) const;

 private:
  // Length, IV and tag of an encrypted segment.
  using Seal = std::array<std::byte, Floe::kSegmentOverhead>;
  static constexpr std::uint64_t kNothing = UINT64_MAX;
  // The plaintext of one segment. Neighbouring small tensors share a segment; keeping the last one spares its
  // decryption.
  struct Cache {
    std::mutex mutex;
    std::uint64_t position = kNothing;
    SecretBytes segment{0};
  };

  Container(const std::string& path, const KeyProvider& keys, ContainerHeader header);
  static Seal seal_of(std::span<const std::byte> segment);
  void verify_each(const Progress& progress, const std::function<void(std::uint64_t, const Seal&)>& see) const;
  // Decrypts in place: only authentic bytes come out, in memory of this object until then.
  std::span<const std::byte> decrypt(std::uint64_t position, std::span<std::byte> room) const;
  void read_part(std::uint64_t position, std::size_t from, std::span<std::byte> out) const;
  void check(std::span<const Destination> wanted) const;
  static void advise_large_pages(std::span<std::byte> out);

  std::string path_;
  ContainerHeader header_;
  std::string dataset_;
  Floe floe_;
  std::vector<SegmentDigest> digests_;  // what each segment must be; empty: any that decrypts
  std::vector<Seal> seals_;             // which ciphertext each segment must be; empty: any that decrypts
  mutable Cache cache_;
};

}  // namespace hushgrad
