#include "dpcore/sealed/container.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <exception>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <omp.h>
#include <openssl/crypto.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dpcore/error.h"
#include "dpcore/keys/bytes.h"
#include "dpcore/keys/kdf.h"

namespace hushgrad {
namespace {

using Format = ContainerFormat;

constexpr std::size_t kRoom = Format::kSegmentBytes - Floe::kSegmentOverhead;  // plaintext in a full segment
constexpr std::size_t kKeyBlockBytes = Format::kKeyIdBytes + Format::kWrappedKeyBytes + Format::kMacBytes;
constexpr std::size_t kTailBytes = kKeyBlockBytes + Floe::kHeaderBytes;  // of the header, after the core
constexpr std::uint64_t kMaxPayload = Format::kMaxSegments * kRoom;
constexpr std::uint64_t kSegmentsPerThread = 8;  // below this, waking a thread costs more than it brings
constexpr int kMaxThreads = 16;  // beyond this the disk is the limit, and each thread holds 2 MiB
constexpr std::string_view kPayloadKeyLabel = "hushgrad sealed 1 payload";
constexpr std::string_view kKeyBlockKeyLabel = "hushgrad sealed 1 keyblock";
constexpr std::string_view kPayloadContext = "hushgrad sealed 1";

std::uint64_t count_segments(std::uint64_t payload_bytes) { return (payload_bytes + kRoom - 1) / kRoom; }

std::size_t segment_plaintext(std::uint64_t position, std::uint64_t payload_bytes) {
  return static_cast<std::size_t>(std::min<std::uint64_t>(kRoom, payload_bytes - position * kRoom));
}

Sha384 key_block_mac(const SecretBytes& data_key, std::span<const std::byte> covered) {
  SecretBytes key(sizeof(Sha384));
  hkdf_expand_sha384(data_key.bytes(), text_bytes(kKeyBlockKeyLabel), key.bytes());
  return hmac_sha384(key.bytes(), covered);
}

SecretBytes payload_key(const SecretBytes& data_key) {
  SecretBytes key(Floe::kKeyBytes);
  hkdf_expand_sha384(data_key.bytes(), text_bytes(kPayloadKeyLabel), key.bytes());
  return key;
}

// Binds every segment to prefix and core, but not to the key block: the data key may be wrapped anew without
// re-encryption.
std::vector<std::byte> payload_context(std::span<const std::byte> prefix_and_core) {
  std::vector<std::byte> context;
  append(context, text_bytes(kPayloadContext));
  append(context, sha384(prefix_and_core));
  return context;
}

// Room for one segment, in clear and encrypted. The clear side is wiped.
struct Scratch {
  SecretBytes plaintext{kRoom};
  std::vector<std::byte> segment = std::vector<std::byte>(Format::kSegmentBytes);
};

// Calls work(position, scratch) for positions [first, last) on several threads; the first exception wins.
template <typename Work>
void for_each_segment(std::uint64_t first, std::uint64_t last, const Work& work) {
  const auto most = static_cast<std::uint64_t>(std::clamp(omp_get_max_threads(), 1, kMaxThreads));
  const int threads =
      static_cast<int>(std::clamp<std::uint64_t>((last - first) / kSegmentsPerThread, 1, most));
  std::atomic<std::uint64_t> next{first};
  std::atomic<bool> failed{false};
  std::exception_ptr error;
#pragma omp parallel num_threads(threads)
  {
    try {
      Scratch scratch;
      for (std::uint64_t i = next++; i < last && !failed; i = next++) work(i, scratch);
    } catch (...) {
      if (!failed.exchange(true)) error = std::current_exception();
    }
    if (omp_get_thread_num() != 0) {
      OPENSSL_thread_stop();  // or each pool thread keeps its own random generator for good
    }
  }
  if (error) std::rethrow_exception(error);
}

// The chunks as one long array.
class Gather {
 public:
  explicit Gather(std::span<const std::span<const std::byte>> chunks) : chunks_(chunks) {
    for (const auto& chunk : chunks) {
      starts_.push_back(size_);
      if (chunk.size() > kMaxPayload - size_) {
        throw InvalidArgument("[write_sealed] Expected at most 4 PiB in a file, received more. Split it.");
      }
      size_ += chunk.size();
    }
  }
  std::uint64_t size() const { return size_; }

  // `size` bytes at `offset`: in place where one chunk holds them all, else copied to `room`.
  std::span<const std::byte> get(std::uint64_t offset, std::size_t size, std::span<std::byte> room) const {
    auto i =
        static_cast<std::size_t>(std::upper_bound(starts_.begin(), starts_.end(), offset) - starts_.begin()) -
        1;
    if (offset - starts_[i] + size <= chunks_[i].size()) return chunks_[i].subspan(offset - starts_[i], size);
    for (std::size_t done = 0; done < size; ++i) {
      const auto part = chunks_[i].subspan(static_cast<std::size_t>(offset + done - starts_[i]));
      const std::size_t count = std::min(part.size(), size - done);
      std::copy_n(part.begin(), count, room.begin() + static_cast<std::ptrdiff_t>(done));
      done += count;
    }
    return room.first(size);
  }

 private:
  std::span<const std::span<const std::byte>> chunks_;
  std::vector<std::uint64_t> starts_;
  std::uint64_t size_ = 0;
};

std::vector<std::byte> encode_prefix_and_core(std::uint64_t payload_bytes, const std::string& core) {
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

}  // namespace

// The header of an open file, well formed but not yet authentic.
struct Container::Header {
  Descriptor file;
  std::uint64_t payload_bytes;
  std::vector<std::byte> bytes;  // all of it: prefix, core, key block, FLOE header

  static Header open(const std::string& path);
  Floe authenticate(const Keyring& keyring) const;

  std::span<const std::byte> before_key_block() const {
    return std::span(bytes).first(bytes.size() - kTailBytes);
  }
  std::span<const std::byte> key_block() const {
    return std::span(bytes).last(kTailBytes).first(kKeyBlockBytes);
  }
  std::string core() const {
    const auto text = before_key_block().subspan(Format::kPrefixBytes);
    return {reinterpret_cast<const char*>(text.data()), text.size()};
  }
  std::string key_id() const { return to_hex(key_block().first(Format::kKeyIdBytes)); }

 private:
  static std::size_t check_prefix(std::span<const std::byte> prefix);
  void check_file_length(std::uint64_t file_bytes, const std::string& path) const;
};

// Refuses what this version does not know before anything else is read; returns the length of the core.
std::size_t Container::Header::check_prefix(std::span<const std::byte> prefix) {
  if (std::memcmp(prefix.data(), Format::kMagic, 8) != 0) {
    throw SealError("[open_sealed] Expected a sealed file, received something else. Check the path.");
  }
  const std::uint64_t version = read_big_endian(prefix.subspan(8, 2));
  const std::uint64_t suite = read_big_endian(prefix.subspan(10, 2));
  const std::uint64_t flags = read_big_endian(prefix.subspan(12, 4));
  if (version != Format::kVersion || suite != Format::kSuite || flags != Format::kFlags) {
    throw SealError(
        message("[open_sealed] Expected version 1, suite 1, flags 0, received unsupported version ", version,
                ", suite ", suite, ", flags ", flags, ". Open it with the hushgrad that wrote it."));
  }
  const std::uint64_t payload_bytes = read_big_endian(prefix.subspan(16, 8));
  const std::uint64_t core_bytes = read_big_endian(prefix.subspan(24, 4));
  if (payload_bytes == 0 || payload_bytes > kMaxPayload || core_bytes > Format::kMaxCoreBytes) {
    throw SealError(
        "[open_sealed] Expected lengths within the format's limits, received others. Use an intact copy.");
  }
  return static_cast<std::size_t>(core_bytes);
}

void Container::Header::check_file_length(std::uint64_t file_bytes, const std::string& path) const {
  const std::uint64_t expected =
      bytes.size() + payload_bytes + count_segments(payload_bytes) * Floe::kSegmentOverhead;
  if (file_bytes == expected) return;
  throw SealError(message("[open_sealed] Expected ", path, " to be ", expected, " bytes long, received ",
                          file_bytes, file_bytes < expected ? ": it is truncated" : ": it has trailing bytes",
                          ". Use an intact copy."));
}

Container::Header Container::Header::open(const std::string& path) {
  if (path.find('\0') != path.npos) {
    throw InvalidArgument("[open_sealed] Expected a path without NUL, received one with it.");
  }
  Header header{Descriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)), 0, {}};
  struct stat status;
  if (header.file.get() < 0 || ::fstat(header.file.get(), &status) != 0) {
    throw IoError(message("[open_sealed] Expected a readable file at ", path,
                          ", received: ", std::strerror(errno), "."));
  }
  if (!S_ISREG(status.st_mode)) {
    throw IoError(message("[open_sealed] Expected a regular file at ", path, ", received another kind."));
  }
  const auto file_bytes = static_cast<std::uint64_t>(status.st_size);

  const auto read = [&](std::size_t size) {
    header.bytes.resize(size);
    if (file_bytes >= size && read_at(header.file.get(), 0, header.bytes, path)) return;
    throw SealError(message("[open_sealed] Expected a header of ", size, " bytes in ", path, ", received ",
                            file_bytes, " bytes: it is truncated. Use an intact copy."));
  };
  read(Format::kPrefixBytes);
  read(Format::kPrefixBytes + check_prefix(header.bytes) + kTailBytes);
  check_prefix(header.bytes);  // what is kept is what was checked, even if the file changed between the reads
  header.payload_bytes = read_big_endian(std::span(header.bytes).subspan(16, 8));
  header.check_file_length(file_bytes, path);
  return header;
}

Floe Container::Header::authenticate(const Keyring& keyring) const {
  const auto wrapped = key_block().subspan(Format::kKeyIdBytes, Format::kWrappedKeyBytes);
  const SecretBytes data_key = keyring.unwrap({key_id(), {wrapped.begin(), wrapped.end()}});
  const auto covered = std::span(bytes).first(bytes.size() - Floe::kHeaderBytes - Format::kMacBytes);
  if (!equal_in_constant_time(key_block_mac(data_key, covered), key_block().last(Format::kMacBytes))) {
    throw SealError(
        "[open_sealed] Expected the header that was sealed, received one that was altered or belongs to "
        "another file. Use an intact copy.");
  }
  return Floe::start_decryption(payload_key(data_key).bytes(), payload_context(before_key_block()),
                                Format::kSegmentBytes, std::span(bytes).last(Floe::kHeaderBytes));
}

void write_container(const std::string& path, const std::string& dataset, const std::string& core,
                     std::span<const std::span<const std::byte>> chunks, const Keyring& keyring,
                     IfExists if_exists) {
  const Gather payload(chunks);
  if (payload.size() == 0 || core.size() > Format::kMaxCoreBytes) {
    throw InvalidArgument(message("[write_sealed] Expected a payload and at most ", Format::kMaxCoreBytes,
                                  " bytes of core, received ", payload.size(), " and ", core.size(),
                                  " bytes."));
  }
  const SecretBytes data_key = SecretBytes::random(Floe::kKeyBytes);
  const WrappedKey wrapped = keyring.wrap(dataset, data_key.bytes());
  std::vector<std::byte> header = encode_prefix_and_core(payload.size(), core);
  const Floe floe =
      Floe::start_encryption(payload_key(data_key).bytes(), payload_context(header), Format::kSegmentBytes);
  std::array<std::byte, Format::kKeyIdBytes> key_id;
  from_hex(wrapped.key_id, key_id);
  append(header, key_id);
  append(header, wrapped.bytes);
  append(header, key_block_mac(data_key, header));
  append(header, floe.header());

  DurableFile file(path, if_exists);
  file.write_at(0, header);
  const std::uint64_t segments = count_segments(payload.size());
  for_each_segment(0, segments, [&](std::uint64_t i, Scratch& scratch) {
    const auto plaintext =
        payload.get(i * kRoom, segment_plaintext(i, payload.size()), scratch.plaintext.bytes());
    const auto segment = std::span(scratch.segment).first(plaintext.size() + Floe::kSegmentOverhead);
    floe.encrypt_segment(i, i + 1 == segments, plaintext, segment);
    file.write_at(header.size() + i * Format::kSegmentBytes, segment);
  });
  file.publish();
}

Container::Container(const std::string& path, const Keyring& keyring)
    : Container(path, keyring, Header::open(path)) {}

Container::Container(const std::string& path, const Keyring& keyring, Header header)
    : path_(path),
      file_(std::move(header.file)),
      body_offset_(header.bytes.size()),
      payload_bytes_(header.payload_bytes),
      core_(header.core()),
      dataset_(keyring.dataset_of(header.key_id())),
      floe_(header.authenticate(keyring)) {}

std::string Container::unauthenticated_core(const std::string& path) { return Header::open(path).core(); }

// Only authentic bytes come out of here: `plaintext` is the object's own memory until this returns.
void Container::decrypt(std::uint64_t position, std::span<std::byte> segment,
                        std::span<std::byte> plaintext) const {
  if (!read_at(file_.get(), body_offset_ + position * Format::kSegmentBytes, segment, path_)) {
    throw SealError(message("[read_sealed] Expected segment ", position, " of ", path_,
                            ", received the end of the file: it "
                            "was truncated while open."));
  }
  floe_.decrypt_segment(position, position + 1 == count_segments(payload_bytes_), segment, plaintext);
}

void Container::read_part(std::uint64_t position, std::size_t from, std::span<std::byte> out) const {
  const std::lock_guard lock(cache_.mutex);
  if (cache_.position != position) {
    cache_.position = kNothing;
    cache_.plaintext = SecretBytes(segment_plaintext(position, payload_bytes_));
    std::vector<std::byte> segment(cache_.plaintext.size() + Floe::kSegmentOverhead);
    decrypt(position, segment, cache_.plaintext.bytes());
    cache_.position = position;
  }
  std::copy_n(cache_.plaintext.bytes().begin() + static_cast<std::ptrdiff_t>(from), out.size(), out.begin());
}

void Container::read(std::uint64_t offset, std::span<std::byte> out) const {
  if (offset > payload_bytes_ || out.size() > payload_bytes_ - offset) {
    throw InvalidArgument(message("[read_sealed] Expected a range within ", payload_bytes_,
                                  " bytes, received ", out.size(), " bytes at ", offset, "."));
  }
  if (out.empty()) return;
  try {
    read_segments(offset, out);
  } catch (...) {
    std::fill(out.begin(), out.end(), std::byte{0});
    throw;
  }
}

void Container::read_segments(std::uint64_t offset, std::span<std::byte> out) const {
  const std::uint64_t end = offset + out.size();
  for_each_segment(offset / kRoom, (end - 1) / kRoom + 1, [&](std::uint64_t i, Scratch& scratch) {
    const std::uint64_t start = i * kRoom;
    const std::size_t size = segment_plaintext(i, payload_bytes_);
    const std::uint64_t from = std::max(offset, start);
    const std::uint64_t to = std::min(end, start + size);
    const auto part =
        out.subspan(static_cast<std::size_t>(from - offset), static_cast<std::size_t>(to - from));
    if (part.size() < size) return read_part(i, static_cast<std::size_t>(from - start), part);
    const auto plaintext = scratch.plaintext.bytes().first(size);
    decrypt(i, std::span(scratch.segment).first(size + Floe::kSegmentOverhead), plaintext);
    std::copy(plaintext.begin(), plaintext.end(), part.begin());
  });
}

void Container::verify_all() const {
  for_each_segment(0, count_segments(payload_bytes_), [&](std::uint64_t i, Scratch& scratch) {
    const std::size_t size = segment_plaintext(i, payload_bytes_);
    decrypt(i, std::span(scratch.segment).first(size + Floe::kSegmentOverhead),
            scratch.plaintext.bytes().first(size));
  });
}

}  // namespace hushgrad
