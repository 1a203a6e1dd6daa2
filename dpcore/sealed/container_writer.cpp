#include "dpcore/sealed/container_writer.h"

#include <algorithm>
#include <mutex>
#include <utility>
#include <vector>

#include "dpcore/keys/bytes.h"
#include "dpcore/sealed/container_header.h"

namespace hushgrad {
namespace {

using Format = ContainerFormat;

// The disk works while the next segments are encrypted; one request for each segment would be small and often.
constexpr std::uint64_t kSegmentsPerWriteback = 8;

// Encrypts and writes every segment; returns their digests.
std::vector<SegmentDigest> write_segments(const Floe& floe, const PayloadSource& payload, std::uint64_t body,
                                          const SealOptions& options, DurableFile& file) {
  const std::uint64_t size = payload.size(), segments = Format::segments(size);
  std::vector<SegmentDigest> digests(segments);
  std::mutex counting;
  std::uint64_t done = 0;
  for_each_segment(0, segments, options.threads, [&](std::uint64_t i, SegmentScratch& scratch) {
    const auto plaintext =
        payload.get(i * Format::kRoom, Format::plaintext_of(i, size), scratch.plaintext.bytes());
    const auto segment = scratch.segment.bytes().first(plaintext.size() + Floe::kSegmentOverhead);
    floe.encrypt_segment(i, i + 1 == segments, plaintext, segment);
    digests[i] = segment_digest(segment);
    file.write_at(body + i * Format::kSegmentBytes, segment);
    if ((i + 1) % kSegmentsPerWriteback == 0) {
      constexpr std::uint64_t kBytes = kSegmentsPerWriteback * Format::kSegmentBytes;
      file.begin_writeback(body + (i + 1) * Format::kSegmentBytes - kBytes, kBytes);
    }
    if (!options.progress) return;
    const std::lock_guard lock(counting);
    options.progress(done += plaintext.size(), size);
  });
  return digests;
}

}  // namespace

ContainerWriter::ContainerWriter(const std::string& path, const std::string& dataset, const std::string& core,
                                 const PayloadSource& payload, const KeyProvider& keys, const SealOptions& options) {
  std::vector<std::byte> header = encode_prefix_and_core(payload.size(), core);
  const Sha384 core_digest = sha384(header);
  const SecretBytes data_key = SecretBytes::random(Floe::kKeyBytes);
  const WrappedKey wrapped = keys.wrap(dataset, data_key.bytes());
  const Floe floe = Floe::start_encryption(payload_key(data_key).bytes(), payload_context(core_digest),
                                           Format::kSegmentBytes);
  header.push_back(kIdle);
  append(header, encode_slot(1, wrapped, data_key, core_digest));
  append(header, encode_empty_slot(data_key, core_digest));
  append(header, floe.header());

  file_ = std::make_unique<DurableFile>(path, options.if_exists);
  file_->forget_replaced();
  file_->write_at(0, header);
  const std::vector<SegmentDigest> digests = write_segments(floe, payload, header.size(), options, *file_);

  const auto table = std::as_bytes(std::span(digests));
  const Manifest manifest{core_digest, floe.header(), digests.size(), sha384(table)};
  std::vector<std::byte> signature;
  if (options.identity) {
    signature = options.identity->sign(std::string(Format::kSignatureContext), manifest.text());
  }
  std::vector<std::byte> tail(table.begin(), table.end());
  append(tail, encode_trailer(manifest, signature, data_key));
  file_->write_at(header.size() + payload.size() + digests.size() * Floe::kSegmentOverhead, tail);
  digest_ = manifest.digest();
}

}  // namespace hushgrad
