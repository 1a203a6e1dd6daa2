#include "dpcore/sealed/tensor_index.h"

#include <algorithm>
#include <array>
#include <optional>
#include <unordered_set>
#include <utility>

#include <nlohmann/json.hpp>

#include "dpcore/error.h"

namespace hushgrad {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxNameBytes = 4096;
constexpr int kDeepest = 4;  // index > tensors > tensor > shape

struct Dtype {
  std::string_view name;
  std::uint64_t bytes;
};
// clang-format off
constexpr std::array<Dtype, 17> kDtypes{{
    {"BOOL", 1}, {"U8", 1}, {"I8", 1}, {"F8_E4M3", 1}, {"F8_E5M2", 1},
    {"U16", 2}, {"I16", 2}, {"F16", 2}, {"BF16", 2},
    {"U32", 4}, {"I32", 4}, {"F32", 4},
    {"U64", 8}, {"I64", 8}, {"F64", 8}, {"C64", 8},
    {"C128", 16}}};
// clang-format on

// The length of a tensor in bytes; nothing when the dtype is unknown, a dimension negative or the product too
// large, also that of the other dimensions where one is 0: who makes such a tensor computes strides from them.
std::optional<std::uint64_t> tensor_bytes(std::string_view dtype, std::span<const std::int64_t> shape) {
  const auto* known =
      std::find_if(kDtypes.begin(), kDtypes.end(), [&](const Dtype& d) { return d.name == dtype; });
  if (known == kDtypes.end()) return std::nullopt;
  auto bytes = static_cast<std::int64_t>(known->bytes);
  bool empty = false;
  for (const std::int64_t dimension : shape) {
    empty |= dimension == 0;
    if (dimension < 0 || (dimension > 0 && __builtin_mul_overflow(bytes, dimension, &bytes))) return std::nullopt;
  }
  return empty ? 0 : static_cast<std::uint64_t>(bytes);
}

bool is_name(std::string_view name) {
  return !name.empty() && name.size() <= kMaxNameBytes &&
         std::none_of(name.begin(), name.end(), [](unsigned char c) { return c < 0x20 || c == 0x7F; });
}

[[noreturn]] void malformed(const char* what) {
  throw SealError(message("[open_sealed] Expected an index with ", what,
                          ", received another. The file was not written by "
                          "hushgrad; do not use it."));
}

bool too_deep(int depth, json::parse_event_t, json&) {
  if (depth > kDeepest) malformed("four levels at most");
  return true;
}

bool has_exactly(const json& object, std::initializer_list<const char*> keys) {
  return object.is_object() && object.size() == keys.size() &&
         std::all_of(keys.begin(), keys.end(), [&](const char* key) { return object.contains(key); });
}

// Canonical: writing it again gives the same bytes. This refuses duplicate keys, blanks and odd spellings at
// once.
json parse_canonical(std::string_view text) {
  json parsed;
  try {
    parsed = json::parse(text, too_deep);
    if (parsed.dump() == text) return parsed;
  } catch (const json::exception&) {  // its message quotes the input
    malformed("valid JSON");
  }
  malformed("canonical JSON");
}

SealedReader::Entry parse_entry(const json& object) {
  if (!has_exactly(object, {"begin", "dtype", "end", "name", "shape"}) ||
      !object["begin"].is_number_unsigned() || !object["end"].is_number_unsigned() ||
      !object["dtype"].is_string() || !object["name"].is_string() || !object["shape"].is_array()) {
    malformed("begin, dtype, end, name and shape for each tensor");
  }
  SealedReader::Entry entry{object["name"], object["dtype"], {}, object["begin"], object["end"]};
  for (const json& dimension : object["shape"]) {
    if (!dimension.is_number_unsigned() || dimension.get<std::uint64_t>() > INT64_MAX) {
      malformed("dimensions 0..2^63-1");
    }
    entry.shape.push_back(dimension.get<std::int64_t>());
  }
  return entry;
}

}  // namespace

std::string build_index(const std::string& meta_json, std::span<const TensorDescription> tensors) {
  check_json("meta_json", meta_json);
  json entries = json::array();
  std::unordered_set<std::string_view> names;
  std::uint64_t begin = 0;
  for (const TensorDescription& tensor : tensors) {
    if (!is_name(tensor.name) || !names.insert(tensor.name).second) {
      throw InvalidArgument(
          "[write_sealed] Expected unique tensor names of 1..4096 bytes without control characters, "
          "received another. Rename the tensor.");
    }
    if (tensor_bytes(tensor.dtype, tensor.shape) != tensor.bytes) {
      throw InvalidArgument(message(
          "[write_sealed] Expected the bytes of ", tensor.name, " to fit its dtype and shape, received ",
          tensor.bytes, " bytes of ", tensor.dtype, ". Pass contiguous data of a supported dtype."));
    }
    const std::uint64_t end = begin + tensor.bytes;
    entries.push_back({{"name", tensor.name},
                       {"dtype", tensor.dtype},
                       {"shape", tensor.shape},
                       {"begin", begin},
                       {"end", end}});
    begin = end;
  }
  std::string text;
  try {
    text = json{{"meta", meta_json}, {"tensors", std::move(entries)}}.dump();
  } catch (const json::exception&) {
    throw InvalidArgument(
        "[write_sealed] Expected UTF-8 in tensor names and meta_json, received other bytes.");
  }
  if (text.size() > kMaxIndexBytes) {
    throw InvalidArgument(message("[write_sealed] Expected at most ", kMaxIndexBytes,
                                  " bytes of names and meta_json, received ", text.size(),
                                  ". Store large values as tensors."));
  }
  return text;
}

TensorIndex parse_index(std::string_view text, std::uint64_t data_bytes) {
  const json parsed = parse_canonical(text);
  if (!has_exactly(parsed, {"meta", "tensors"}) || !parsed["meta"].is_string() ||
      !parsed["tensors"].is_array()) {
    malformed("meta and tensors");
  }
  TensorIndex index{parsed["meta"], {}};
  if (!json::accept(index.meta_json)) malformed("JSON as meta");
  std::unordered_set<std::string> names;
  std::uint64_t begin = 0;
  for (const json& object : parsed["tensors"]) {
    SealedReader::Entry entry = parse_entry(object);
    if (!is_name(entry.name) || !names.insert(entry.name).second) malformed("unique names");
    if (entry.begin != begin || entry.end < begin || entry.end > data_bytes) {
      malformed("tensors that follow each other");
    }
    if (tensor_bytes(entry.dtype, entry.shape) != entry.end - entry.begin) {
      malformed("lengths that fit dtype and shape");
    }
    begin = entry.end;
    index.tensors.push_back(std::move(entry));
  }
  if (begin != data_bytes) malformed("tensors up to the end");
  return index;
}

}  // namespace hushgrad
