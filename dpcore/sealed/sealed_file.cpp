#include "dpcore/sealed/sealed_file.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <map>
#include <string_view>
#include <utility>

#include "dpcore/error.h"
#include "dpcore/keys/bytes.h"
#include "dpcore/sealed/container.h"
#include "dpcore/sealed/tensor_index.h"

namespace hushgrad {
namespace {

constexpr std::size_t kIndexLengthBytes = 8;

// The core with what only the writer knows, in canonical JSON.
std::string complete(SealedCore core, std::size_t index_bytes, std::uint64_t payload_bytes, const KeyProvider& keys,
                     const SealOptions& options) {
  std::array<std::byte, 16> id;
  fill_random(id);
  core.file_id = to_hex(id);
  core.created = std::chrono::duration_cast<std::chrono::microseconds>(
                     std::chrono::system_clock::now().time_since_epoch())
                     .count();
  core.writer = options.identity ? options.identity->public_key().id() : "";
  core.keyring_generation = static_cast<std::int64_t>(keys.generation());
  core.software = "hushgrad " HUSHGRAD_VERSION;
  core.index_bytes = static_cast<std::int64_t>(index_bytes);
  core.payload_bytes = static_cast<std::int64_t>(payload_bytes);
  return encode_core(core);
}

// The index in memory, followed by data from elsewhere.
class IndexedSource final : public PayloadSource {
 public:
  IndexedSource(const std::string& index, const PayloadSource& data) : data_(data) {
    append_big_endian(head_, index.size(), kIndexLengthBytes);
    append(head_, text_bytes(index));
  }
  std::uint64_t size() const override { return head_.size() + data_.size(); }
  std::span<const std::byte> get(std::uint64_t offset, std::size_t size, std::span<std::byte> room) const override {
    if (offset >= head_.size()) return data_.get(offset - head_.size(), size, room);
    const auto here = std::span(head_).subspan(static_cast<std::size_t>(offset));
    if (size <= here.size()) return here.first(size);
    std::copy(here.begin(), here.end(), room.begin());
    const auto there = room.subspan(here.size(), size - here.size());
    const auto got = data_.get(0, there.size(), there);
    if (got.data() != there.data()) std::copy(got.begin(), got.end(), there.begin());
    return room.first(size);
  }

 private:
  const PayloadSource& data_;
  std::vector<std::byte> head_;
};

ContainerWriter write_indexed(const std::string& path, const SealedCore& core, const std::string& index,
                              const PayloadSource& data, const KeyProvider& keys, const SealOptions& options) {
  const IndexedSource payload(index, data);
  return {path, core.dataset, complete(core, index.size(), payload.size(), keys, options), payload, keys, options};
}

MemorySource bytes_of(std::span<const SealedTensor> tensors) {
  std::vector<std::span<const std::byte>> chunks;
  for (const SealedTensor& tensor : tensors) {
    if (!tensor.bytes.empty()) chunks.push_back(tensor.bytes);
  }
  return MemorySource(std::move(chunks));
}

std::vector<TensorDescription> described(std::span<const SealedTensor> tensors) {
  std::vector<TensorDescription> all;
  for (const SealedTensor& t : tensors) all.push_back({t.name, t.dtype, t.shape, t.bytes.size()});
  return all;
}

}  // namespace

SealedWriter::SealedWriter(const std::string& path, const SealedCore& core, const std::string& meta_json,
                           std::span<const SealedTensor> tensors, const KeyProvider& keys, const SealOptions& options)
    : container_(write_indexed(path, core, build_index(meta_json, described(tensors)), bytes_of(tensors), keys, options)) {}

SealedWriter::SealedWriter(const std::string& path, const SealedCore& core, const std::string& meta_json,
                           std::span<const TensorDescription> described, const PayloadSource& data,
                           const KeyProvider& keys, const SealOptions& options)
    : container_(write_indexed(path, core, build_index(meta_json, described), data, keys, options)) {}

void write_sealed(const std::string& path, const SealedCore& core, const std::string& meta_json,
                  std::span<const SealedTensor> tensors, const KeyProvider& keyring, IfExists if_exists) {
  SealedWriter(path, core, meta_json, tensors, keyring, {.if_exists = if_exists}).publish();
}

SealedReader::SealedReader(const std::string& path, const KeyProvider& keyring)
    : container_(std::make_unique<Container>(path, keyring)), core_(decode_core(container_->core())) {
  if (core_.dataset != container_->dataset()) {
    throw KeyError(message("[open_sealed] Expected a key of dataset ", core_.dataset, ", received one of ",
                           container_->dataset(),
                           ". Do not use this file: it was sealed under the wrong key."));
  }
  const std::uint64_t payload = container_->payload_bytes();
  if (static_cast<std::uint64_t>(core_.payload_bytes) != payload || core_.writer.empty() == container_->is_signed()) {
    throw SealError(
        "[open_sealed] Expected a core that fits its file, received another. Do not use this file.");
  }
  std::array<std::byte, kIndexLengthBytes> length_bytes{};
  if (payload >= kIndexLengthBytes) container_->read(0, length_bytes);
  const std::uint64_t length = read_big_endian(length_bytes);
  if (payload < kIndexLengthBytes || length > kMaxIndexBytes || length > payload - kIndexLengthBytes ||
      length != static_cast<std::uint64_t>(core_.index_bytes)) {
    throw SealError(
        "[open_sealed] Expected an index within the payload, received another length. Do not use this file.");
  }
  std::string text(static_cast<std::size_t>(length), '\0');
  container_->read(kIndexLengthBytes, std::as_writable_bytes(std::span(text)));
  data_offset_ = kIndexLengthBytes + length;
  TensorIndex index = parse_index(text, payload - data_offset_);
  meta_json_ = std::move(index.meta_json);
  tensors_ = std::move(index.tensors);
}

SealedReader::SealedReader(SealedReader&&) noexcept = default;
SealedReader& SealedReader::operator=(SealedReader&&) noexcept = default;
SealedReader::~SealedReader() = default;

const SealedReader::Entry& SealedReader::entry(const std::string& name) const {
  const auto found =
      std::find_if(tensors_.begin(), tensors_.end(), [&](const Entry& e) { return e.name == name; });
  if (found != tensors_.end()) return *found;
  throw InvalidArgument(
      message("[read_sealed] Expected the name of a tensor in the file, received ", name, "."));
}

std::string SealedReader::digest() const { return container_->digest(); }
bool SealedReader::is_signed() const { return container_->is_signed(); }
const KeySlots& SealedReader::slots() const { return container_->slots(); }
void SealedReader::trust_digest() { container_->trust_digest(); }

void SealedReader::verify_manifest(const PublicKey& writer) {
  if (is_signed() && core_.writer != writer.id()) {
    throw SealError(message("[verify_manifest] Expected a file written by ", writer.id(), ", received one of ",
                            core_.writer, ". Check whose public key this is."));
  }
  container_->verify_manifest(writer);
}

void SealedReader::read(const Entry& entry, std::uint64_t offset, std::span<std::byte> out) const {
  const std::uint64_t data_bytes = container_->payload_bytes() - data_offset_;
  if (entry.begin > entry.end || entry.end > data_bytes || offset > entry.end - entry.begin ||
      out.size() > entry.end - entry.begin - offset) {
    throw InvalidArgument(message("[read_sealed] Expected at most the ", entry.end - entry.begin, " bytes of ", entry.name,
                                  ", received room for ", out.size(), " at ", offset, "."));
  }
  container_->read(data_offset_ + entry.begin + offset, out);
}

void SealedReader::read(const Entry& entry, std::span<std::byte> out) const {
  if (out.size() != entry.end - entry.begin) {
    throw InvalidArgument(message("[read_sealed] Expected room for the ", entry.end - entry.begin,
                                  " bytes of ", entry.name, ", received ", out.size(), "."));
  }
  read(entry, 0, out);
}

void SealedReader::read_all(std::span<const std::span<std::byte>> outs, int threads, const Progress& progress) const {
  std::vector<Destination> wanted;
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    const Entry& entry = tensors_[i];
    if (outs.size() != tensors_.size() || outs[i].size() != entry.end - entry.begin) {
      throw InvalidArgument("[read_sealed] Expected room for exactly every tensor of the file, received another.");
    }
    wanted.push_back({data_offset_ + entry.begin, outs[i]});
  }
  container_->verify_table();
  container_->read(wanted, threads, progress);
}

void SealedReader::pin(const Progress& progress) { container_->pin(progress); }

void SealedReader::read_some(std::span<const std::string> names, std::span<const std::span<std::byte>> outs,
                             int threads) const {
  std::map<std::string_view, const Entry*> by_name;
  for (const Entry& entry : tensors_) by_name.emplace(entry.name, &entry);
  std::vector<Destination> wanted;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const auto found = by_name.find(names[i]);
    if (outs.size() != names.size() || found == by_name.end() ||
        outs[i].size() != found->second->end - found->second->begin) {
      throw InvalidArgument("[read_sealed] Expected names of tensors in the file and room for exactly each, received others.");
    }
    wanted.push_back({data_offset_ + found->second->begin, outs[i]});
    by_name.erase(found);
  }
  std::sort(wanted.begin(), wanted.end(), [](const Destination& a, const Destination& b) {
    return std::pair(a.offset, a.out.size()) < std::pair(b.offset, b.out.size());
  });
  container_->read(wanted, threads);
}

void SealedReader::verify_all(const Progress& progress) const { container_->verify_all(progress); }

SealedCore inspect_sealed(const std::string& path) { return decode_core(ContainerHeader::open(path).core); }

SealedAppearance appearance_of(const std::string& path) {
  const ContainerHeader header = ContainerHeader::open(path);
  const bool found = header.slots.usable();
  return {decode_core(header.core),
          header.manifest().digest(),
          !header.trailer.signature.empty(),
          found ? header.slots.active->key.key_id : "",
          found ? header.slots.active->generation : 0,
          !found || header.slots.unfinished()};
}

void verify_manifest(const std::string& path, const PublicKey& writer) {
  const ContainerHeader header = ContainerHeader::open(path);
  check_signature(header.manifest(), header.trailer.signature, writer);
  if (decode_core(header.core).writer != writer.id()) {
    throw SealError("[verify_manifest] Expected a core that names its writer, received another. Do not use this file.");
  }
  const std::vector<SegmentDigest> digests = header.read_table(path);
  for_each_segment(0, header.segments(), 0, [&](std::uint64_t i, SegmentScratch& scratch) {
    const auto segment = scratch.segment.bytes().first(header.segment_bytes(i));
    if (read_at(header.file.get(), header.segment_offset(i), segment, path) && segment_digest(segment) == digests[i]) {
      return;
    }
    throw SealError(message("[verify_manifest] Expected segment ", i, " of ", path,
                            " as it was signed, received another. Do not use this file."));
  });
}

}  // namespace hushgrad
