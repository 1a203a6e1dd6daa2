#include "dpcore/sealed/container.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include <sys/mman.h>

#include "dpcore/error.h"
#include "dpcore/sealed/gcm.h"

namespace hushgrad {

using Format = ContainerFormat;

Container::Container(const std::string& path, const KeyProvider& keys)
    : Container(path, keys, ContainerHeader::open(path)) {}

Container::Container(const std::string& path, const KeyProvider& keys, ContainerHeader header)
    : path_(path),
      header_(std::move(header)),
      dataset_(keys.dataset_of(header_.active_slot().key.key_id)),
      floe_(Floe::start_decryption(payload_key(authenticate(header_, keys)).bytes(),
                                   payload_context(header_.core_digest), Format::kSegmentBytes,
                                   header_.floe_header)) {}

void Container::verify_manifest(const PublicKey& writer) {
  check_signature(header_.manifest(), header_.trailer.signature, writer);
  trust_digest();
}

void Container::trust_digest() {
  const std::lock_guard lock(cache_.mutex);
  digests_ = header_.read_table(path_);
  cache_.position = kNothing;  // it was decrypted, not compared
}

Container::Seal Container::seal_of(std::span<const std::byte> segment) {
  constexpr std::size_t kHead = Floe::kSegmentOverhead - kGcmTagBytes;
  Seal seal;
  std::copy_n(segment.begin(), kHead, seal.begin());
  std::copy(segment.end() - kGcmTagBytes, segment.end(), seal.begin() + kHead);
  return seal;
}

void Container::pin(const Progress& progress) {
  std::vector<Seal> seen(header_.segments());
  verify_each(progress, [&](std::uint64_t i, const Seal& seal) { seen[i] = seal; });
  const std::lock_guard lock(cache_.mutex);
  seals_ = std::move(seen);
  cache_.position = kNothing;
}

std::span<const std::byte> Container::decrypt(std::uint64_t position, std::span<std::byte> room) const {
  const auto segment = room.first(header_.segment_bytes(position));
  if (!read_at(header_.file.get(), header_.segment_offset(position), segment, path_)) {
    throw SealError(message("[read_sealed] Expected segment ", position, " of ", path_,
                            ", received the end of the file: it was truncated while open."));
  }
  if (!digests_.empty() && segment_digest(segment) != digests_[position]) {
    throw SealError(message("[read_sealed] Expected segment ", position, " of ", path_,
                            " as its manifest has it, received another: somebody with the key changed it."));
  }
  if (!seals_.empty() && seal_of(segment) != seals_[position]) {
    throw SealError(message("[read_sealed] Expected segment ", position, " of ", path_,
                            " as it was authenticated before, received another: the file was changed while it was read."));
  }
  const auto plaintext = segment.subspan(Floe::kSegmentOverhead - kGcmTagBytes, segment.size() - Floe::kSegmentOverhead);
  floe_.decrypt_segment(position, position + 1 == header_.segments(), segment, plaintext);
  return plaintext;
}

void Container::read_part(std::uint64_t position, std::size_t from, std::span<std::byte> out) const {
  const std::lock_guard lock(cache_.mutex);
  constexpr std::size_t kBegin = Floe::kSegmentOverhead - kGcmTagBytes;
  if (cache_.position != position) {
    cache_.position = kNothing;
    cache_.segment = SecretBytes(header_.segment_bytes(position));
    decrypt(position, cache_.segment.bytes());
    cache_.position = position;
  }
  std::copy_n(cache_.segment.bytes().begin() + static_cast<std::ptrdiff_t>(kBegin + from), out.size(), out.begin());
}

// A page fault each 2 MiB instead of each 4 KiB; only a hint, for memory that nobody has touched yet.
void Container::advise_large_pages(std::span<std::byte> out) {
  constexpr std::uintptr_t kLargePage = 2 * 1024 * 1024;
  const auto begin = (reinterpret_cast<std::uintptr_t>(out.data()) + kLargePage - 1) / kLargePage * kLargePage;
  const auto end = (reinterpret_cast<std::uintptr_t>(out.data()) + out.size()) / kLargePage * kLargePage;
  if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
}

void Container::check(std::span<const Destination> wanted) const {
  std::uint64_t end = 0;
  for (const Destination& part : wanted) {
    if (part.offset < end || part.offset > payload_bytes() || part.out.size() > payload_bytes() - part.offset) {
      throw InvalidArgument(message("[read_sealed] Expected ranges in order within ", payload_bytes(),
                                    " bytes, received ", part.out.size(), " bytes at ", part.offset, "."));
    }
    end = part.offset + part.out.size();
  }
}

void Container::read(std::uint64_t offset, std::span<std::byte> out) const {
  const Destination one{offset, out};
  check(std::span(&one, 1));
  if (out.empty()) return;
  const std::uint64_t position = offset / Format::kRoom;
  const std::uint64_t from = offset - position * Format::kRoom;
  const std::size_t held = Format::plaintext_of(position, payload_bytes());
  if (out.size() == held || from + out.size() > held) return read(std::span(&one, 1));
  try {
    read_part(position, static_cast<std::size_t>(from), out);
  } catch (...) {
    std::fill(out.begin(), out.end(), std::byte{0});
    throw;
  }
}

void Container::read(std::span<const Destination> wanted, int threads, const Progress& progress) const {
  check(wanted);
  std::vector<Destination> parts;
  for (const Destination& part : wanted) {
    if (part.out.empty()) continue;
    advise_large_pages(part.out);
    parts.push_back(part);
  }
  if (parts.empty()) return;
  const std::uint64_t first = parts.front().offset / Format::kRoom;
  const std::uint64_t last = (parts.back().offset + parts.back().out.size() - 1) / Format::kRoom + 1;
  std::mutex counting;
  std::uint64_t done = 0;
  try {
    for_each_segment(first, last, threads, [&](std::uint64_t i, SegmentScratch& scratch) {
      const std::uint64_t start = i * Format::kRoom, end = start + Format::plaintext_of(i, payload_bytes());
      auto part = std::partition_point(parts.begin(), parts.end(), [&](const Destination& d) {
        return d.offset + d.out.size() <= start;
      });
      if (part->offset >= end) return;  // a gap between the ranges
      const auto plaintext = decrypt(i, scratch.segment.bytes());
      for (; part != parts.end() && part->offset < end; ++part) {
        const std::uint64_t from = std::max(part->offset, start);
        const std::uint64_t to = std::min(part->offset + part->out.size(), end);
        std::copy(plaintext.begin() + static_cast<std::ptrdiff_t>(from - start),
                  plaintext.begin() + static_cast<std::ptrdiff_t>(to - start),
                  part->out.begin() + static_cast<std::ptrdiff_t>(from - part->offset));
      }
      if (!progress) return;
      const std::lock_guard lock(counting);
      progress(++done * Format::kRoom, (last - first) * Format::kRoom);
    });
  } catch (...) {
    for (const Destination& part : parts) std::fill(part.out.begin(), part.out.end(), std::byte{0});
    throw;
  }
}

void Container::verify_all(const Progress& progress) const { verify_each(progress, {}); }

void Container::verify_each(const Progress& progress, const std::function<void(std::uint64_t, const Seal&)>& see) const {
  header_.read_table(path_);
  std::mutex counting;
  std::uint64_t done = 0;
  for_each_segment(0, header_.segments(), 0, [&](std::uint64_t i, SegmentScratch& scratch) {
    const auto room = scratch.segment.bytes();
    const std::size_t size = decrypt(i, room).size();
    if (see) see(i, seal_of(room.first(header_.segment_bytes(i))));
    if (!progress) return;
    const std::lock_guard lock(counting);
    progress(done += size, payload_bytes());
  });
}

}  // namespace hushgrad
