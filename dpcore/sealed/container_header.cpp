#include "dpcore/sealed/container_header.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dpcore/error.h"
#include "dpcore/keys/bytes.h"

namespace hushgrad {
namespace {

using Format = ContainerFormat;

struct Prefix {
  std::uint64_t payload_bytes;
  std::size_t core_bytes;
};

// Refuses what this version does not know before anything else is read.
Prefix check_prefix(std::span<const std::byte> prefix) {
  if (std::memcmp(prefix.data(), Format::kMagic, 8) != 0) {
    throw SealError("[open_sealed] Expected a sealed file, received something else. Check the path.");
  }
  const std::uint64_t version = read_big_endian(prefix.subspan(8, 2));
  const std::uint64_t suite = read_big_endian(prefix.subspan(10, 2));
  const std::uint64_t flags = read_big_endian(prefix.subspan(12, 4));
  if (version != Format::kVersion || suite != Format::kSuite || flags != Format::kFlags) {
    throw SealError(message("[open_sealed] Expected version ", Format::kVersion, ", suite ", Format::kSuite, ", flags ",
                            Format::kFlags, ", received unsupported version ", version, ", suite ", suite, ", flags ",
                            flags, ". Open it with the hushgrad that wrote it."));
  }
  const std::uint64_t payload_bytes = read_big_endian(prefix.subspan(16, 8));
  const std::uint64_t core_bytes = read_big_endian(prefix.subspan(24, 4));
  if (payload_bytes == 0 || payload_bytes > Format::kMaxPayload || core_bytes > Format::kMaxCoreBytes) {
    throw SealError(
        "[open_sealed] Expected lengths within the format's limits, received others. Use an intact copy.");
  }
  return {payload_bytes, static_cast<std::size_t>(core_bytes)};
}

std::uint64_t length_of_regular_file(const Descriptor& file, const std::string& path) {
  struct stat status;
  if (file.get() < 0 || ::fstat(file.get(), &status) != 0) {
    throw IoError(
        message("[open_sealed] Expected a readable file at ", path, ", received: ", std::strerror(errno), "."));
  }
  if (!S_ISREG(status.st_mode)) {
    throw IoError(message("[open_sealed] Expected a regular file at ", path, ", received another kind."));
  }
  return static_cast<std::uint64_t>(status.st_size);
}

void read_exactly(const Descriptor& file, std::uint64_t offset, std::span<std::byte> out, const std::string& path) {
  if (read_at(file.get(), offset, out, path)) return;
  throw SealError(message("[open_sealed] Expected ", out.size(), " bytes at ", offset, " of ", path,
                          ", received the end of the file: it is truncated. Use an intact copy."));
}

}  // namespace

std::vector<std::byte> encode_prefix_and_core(std::uint64_t payload_bytes, const std::string& core) {
  if (payload_bytes == 0 || payload_bytes > Format::kMaxPayload || core.size() > Format::kMaxCoreBytes) {
    throw InvalidArgument(message("[write_sealed] Expected a payload of at most 4 PiB and at most ",
                                  Format::kMaxCoreBytes, " bytes of core, received ", payload_bytes, " and ",
                                  core.size(), " bytes."));
  }
  std::vector<std::byte> out;
  append(out, text_bytes({Format::kMagic, 8}));
  append_big_endian(out, Format::kVersion, 2);
  append_big_endian(out, Format::kSuite, 2);
  append_big_endian(out, Format::kFlags, 4);
  append_big_endian(out, payload_bytes, 8);
  append_big_endian(out, core.size(), 4);
  append(out, text_bytes(core));
  return out;
}

SecretBytes payload_key(const SecretBytes& data_key) {
  SecretBytes key(Floe::kKeyBytes);
  hkdf_expand_sha384(data_key.bytes(), text_bytes(Format::kPayloadKeyLabel), key.bytes());
  return key;
}

std::vector<std::byte> payload_context(const Sha384& core_digest) {
  std::vector<std::byte> context;
  append(context, text_bytes(Format::kPayloadContext));
  append(context, core_digest);
  return context;
}

ContainerHeader ContainerHeader::open(const std::string& path, int flags) {
  if (path.find('\0') != path.npos) {
    throw InvalidArgument("[open_sealed] Expected a path without NUL, received one with it.");
  }
  ContainerHeader header;
  header.file = Descriptor(::open(path.c_str(), flags | O_CLOEXEC | O_NONBLOCK));
  const std::uint64_t file_bytes = length_of_regular_file(header.file, path);

  std::vector<std::byte> head(Format::kPrefixBytes);
  read_exactly(header.file, 0, head, path);
  const std::size_t core_bytes = check_prefix(head).core_bytes;
  head.resize(Format::kPrefixBytes + core_bytes);
  read_exactly(header.file, 0, head, path);
  // What is kept is what was checked, even if the file changed between the reads.
  if (check_prefix(head).core_bytes != core_bytes) {
    throw SealError("[open_sealed] Expected a file that stays, received one that changes. Use an intact copy.");
  }
  header.payload_bytes = check_prefix(head).payload_bytes;
  const auto core = std::span(head).subspan(Format::kPrefixBytes);
  header.core.assign(reinterpret_cast<const char*>(core.data()), core.size());
  header.core_digest = sha384(head);

  const std::uint64_t expected =
      header.table_offset() + header.segments() * Format::kLeafBytes + Format::kTrailerBytes;
  if (file_bytes != expected) {
    throw SealError(message("[open_sealed] Expected ", path, " to be ", expected, " bytes long, received ", file_bytes,
                            file_bytes < expected ? ": it is truncated" : ": it has trailing bytes",
                            ". Use an intact copy."));
  }
  header.read_slots(path);
  read_exactly(header.file, header.body_offset() - Floe::kHeaderBytes, header.floe_header, path);
  read_exactly(header.file, expected - Format::kTrailerBytes, header.trailer_bytes, path);
  header.trailer = parse_trailer(header.trailer_bytes);
  return header;
}

// Who reads while a re-wrap writes may see a part of what it does, and reads again.
void ContainerHeader::read_slots(const std::string& path) {
  constexpr int kAttempts = 20;
  std::array<std::byte, Format::kSlotAreaBytes> area;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    read_exactly(file, state_offset(), area, path);
    slots = parse_slots(area);
    if (slots.usable()) return;
    ::usleep(1000);
  }
}

const KeySlot& ContainerHeader::active_slot() const {
  if (slots.usable()) return *slots.active;
  throw SealError(
      "[open_sealed] Expected intact key slots, received altered ones. Use an intact copy.");
}

std::vector<SegmentDigest> ContainerHeader::read_table(const std::string& path) const {
  std::vector<SegmentDigest> table(segments());
  const auto bytes = std::as_writable_bytes(std::span(table));
  read_exactly(file, table_offset(), bytes, path);
  if (sha384(bytes) == trailer.table_digest) return table;
  throw SealError(
      "[open_sealed] Expected the digests of the segments as they were sealed, received others. Use an intact "
      "copy.");
}

SecretBytes authenticate(const ContainerHeader& header, const KeyProvider& keys) {
  SecretBytes data_key = open_slot(header.active_slot(), header.core_digest, keys);
  if (header.slots.other) check_slot(*header.slots.other, data_key, header.core_digest);
  check_trailer(header.trailer_bytes, header.manifest(), data_key);
  return data_key;
}

}  // namespace hushgrad
