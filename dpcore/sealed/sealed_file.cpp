#include "dpcore/sealed/sealed_file.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include <nlohmann/json.hpp>

#include "dpcore/error.h"
#include "dpcore/keys/bytes.h"
#include "dpcore/sealed/container.h"
#include "dpcore/sealed/tensor_index.h"

namespace hushgrad {
namespace {

using nlohmann::json;

constexpr std::size_t kIndexLengthBytes = 8;

[[noreturn]] void malformed_core() {
  throw SealError(
      "[open_sealed] Expected a core of seven known fields in canonical JSON, received another. The file was "
      "not written by this version of hushgrad; do not use it.");
}

std::string encode_core(const SealedCore& core) {
  check_dataset_name(core.dataset);
  check_json("plan_json", core.plan_json);
  check_json("epsilon_json", core.epsilon_json);
  if (core.step < 0 || core.ledger_sequence < 0) {
    throw InvalidArgument(message("[write_sealed] Expected step and ledger_sequence >= 0, received ",
                                  core.step, " and ", core.ledger_sequence, "."));
  }
  try {
    return json{{"dataset", core.dataset},
                {"run_id", core.run_id},
                {"step", core.step},
                {"plan", core.plan_json},
                {"ledger_hash", core.ledger_hash},
                {"ledger_sequence", core.ledger_sequence},
                {"epsilon", core.epsilon_json}}
        .dump();
  } catch (const json::exception&) {
    throw InvalidArgument("[write_sealed] Expected UTF-8 in the core, received other bytes.");
  }
}

std::int64_t count(const json& value) {
  if (!value.is_number_unsigned() || value.get<std::uint64_t>() > INT64_MAX) malformed_core();
  return value.get<std::int64_t>();
}

std::string document(const json& value) {
  const std::string text = value;
  if (!json::accept(text)) malformed_core();
  return text;
}

SealedCore decode_core(const std::string& text) {
  try {
    // Seven flat fields: anything nested is refused before it can grow deep.
    const json parsed = json::parse(text, [](int depth, json::parse_event_t, json&) {
      if (depth > 1) malformed_core();
      return true;
    });
    if (parsed.size() != 7 || parsed.dump() != text) malformed_core();
    SealedCore core{parsed.at("dataset"),
                    parsed.at("run_id"),
                    count(parsed.at("step")),
                    document(parsed.at("plan")),
                    count(parsed.at("ledger_sequence")),
                    parsed.at("ledger_hash"),
                    document(parsed.at("epsilon"))};
    check_dataset_name(core.dataset);
    return core;
  } catch (const json::exception&) {
    malformed_core();
  } catch (const InvalidArgument&) {
    malformed_core();
  }
}

}  // namespace

void write_sealed(const std::string& path, const SealedCore& core, const std::string& meta_json,
                  std::span<const SealedTensor> tensors, const Keyring& keyring, IfExists if_exists) {
  const std::string core_text = encode_core(core);
  const std::string index = build_index(meta_json, tensors);
  std::vector<std::byte> index_length;
  append_big_endian(index_length, index.size(), kIndexLengthBytes);

  std::vector<std::span<const std::byte>> chunks{index_length, text_bytes(index)};
  for (const SealedTensor& tensor : tensors) {
    if (!tensor.bytes.empty()) chunks.push_back(tensor.bytes);
  }
  write_container(path, core.dataset, core_text, chunks, keyring, if_exists);
}

SealedReader::SealedReader(const std::string& path, const Keyring& keyring)
    : container_(std::make_unique<Container>(path, keyring)), core_(decode_core(container_->core())) {
  if (core_.dataset != container_->dataset()) {
    throw KeyError(message("[open_sealed] Expected a key of dataset ", core_.dataset, ", received one of ",
                           container_->dataset(),
                           ". Do not use this file: it was sealed under the wrong key."));
  }
  const std::uint64_t payload = container_->payload_bytes();
  std::array<std::byte, kIndexLengthBytes> length_bytes{};
  if (payload >= kIndexLengthBytes) container_->read(0, length_bytes);
  const std::uint64_t length = read_big_endian(length_bytes);
  if (payload < kIndexLengthBytes || length > kMaxIndexBytes || length > payload - kIndexLengthBytes) {
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

void SealedReader::read(const Entry& entry, std::span<std::byte> out) const {
  const std::uint64_t data_bytes = container_->payload_bytes() - data_offset_;
  if (entry.begin > entry.end || entry.end > data_bytes || out.size() != entry.end - entry.begin) {
    throw InvalidArgument(message("[read_sealed] Expected room for the ", entry.end - entry.begin,
                                  " bytes of ", entry.name, ", received ", out.size(), "."));
  }
  container_->read(data_offset_ + entry.begin, out);
}

void SealedReader::verify_all() const { container_->verify_all(); }

SealedCore inspect_sealed(const std::string& path) {
  return decode_core(Container::unauthenticated_core(path));
}

}  // namespace hushgrad
