#include "torch_ext/checkpoint/tensor_codec.h"

#include <array>
#include <map>
#include <memory>

#include "dpcore/error.h"

namespace hushgrad {
namespace {

struct Dtype {
  at::ScalarType type;
  const char* name;
};

constexpr std::array<Dtype, 17> kDtypes = {{
    {at::kBool, "BOOL"}, {at::kByte, "U8"}, {at::kChar, "I8"}, {at::kShort, "I16"}, {at::kInt, "I32"}, {at::kLong, "I64"},
    {at::kHalf, "F16"}, {at::kBFloat16, "BF16"}, {at::kFloat, "F32"}, {at::kDouble, "F64"},
    {at::kUInt16, "U16"}, {at::kUInt32, "U32"}, {at::kUInt64, "U64"}, {at::kFloat8_e4m3fn, "F8_E4M3"}, {at::kFloat8_e5m2, "F8_E5M2"},
    {at::kComplexFloat, "C64"}, {at::kComplexDouble, "C128"},
}};

const char* name_of(const std::string& tensor, at::ScalarType type) {
  for (const Dtype& dtype : kDtypes) {
    if (dtype.type == type) return dtype.name;
  }
  throw Unsupported(message("[checkpoint] Expected a plain dtype for '", tensor, "', received ", c10::toString(type), ". Convert it first."));
}

std::span<std::byte> bytes_of(const at::Tensor& tensor) {
  return {static_cast<std::byte*>(tensor.data_ptr()), static_cast<std::size_t>(tensor.nbytes())};
}

at::Tensor plain(const std::string& name, const at::Tensor& tensor) {
  if (tensor.layout() != at::kStrided || tensor.is_quantized() || tensor.is_meta()) {
    throw Unsupported(message("[checkpoint] Expected '", name, "' to be a dense tensor with data. Convert it (to_dense, dequantize) first."));
  }
  return tensor.detach().resolve_conj().resolve_neg().cpu().contiguous();
}

// Some tensors of a file, and where each goes.
struct Rooms {
  std::vector<std::string> names;
  std::vector<std::span<std::byte>> rooms;

  void add(const std::string& name, const at::Tensor& tensor) {
    names.push_back(name);
    rooms.push_back(bytes_of(tensor));
  }
  void fill(const SealedReader& reader) const { reader.read_some(names, rooms); }
};

}  // namespace

at::ScalarType type_of(const SealedReader::Entry& entry) {
  for (const Dtype& dtype : kDtypes) {
    if (entry.dtype == dtype.name) return dtype.type;
  }
  throw SealError(message("[checkpoint] Expected a dtype that PyTorch has for '", entry.name, "', received ", entry.dtype, "."));
}

at::ScalarType type_of_torch_name(const std::string& name) {
  static const std::map<std::string, at::ScalarType> types{
      {"bool", at::kBool}, {"uint8", at::kByte}, {"int8", at::kChar}, {"int16", at::kShort}, {"int32", at::kInt}, {"int64", at::kLong},
      {"float16", at::kHalf}, {"bfloat16", at::kBFloat16}, {"float32", at::kFloat}, {"float64", at::kDouble},
      {"complex64", at::kComplexFloat}, {"complex128", at::kComplexDouble}};
  if (const auto found = types.find(name); found != types.end()) return found->second;
  throw Unsupported(message("[checkpoint] Expected a dtype that a module in C++ can have, received another. Load the file in Python."));
}

SealedWriter write_tensors(const std::string& path, const SealedCore& core, const std::string& meta_json,
                           const NamedTensors& tensors, const KeyProvider& keyring, const SealOptions& options) {
  std::vector<at::Tensor> owners;
  std::vector<SealedTensor> sealed;
  for (const auto& [name, tensor] : tensors) {
    owners.push_back(plain(name, tensor));
    sealed.push_back({name, name_of(name, tensor.scalar_type()), tensor.sizes().vec(), bytes_of(owners.back())});
  }
  return {path, core, meta_json, sealed, keyring, options};
}

LoadedTensors load_tensors(const std::string& path, const KeyProvider& keyring,
                           const std::function<bool(const SealedReader&)>& trusted,
                           const std::function<Places(const SealedReader&)>& places_of) {
  const auto reader = std::make_shared<SealedReader>(path, keyring);
  if (trusted && trusted(*reader)) reader->trust_digest();
  const Places places = places_of ? places_of(*reader) : Places{};
  LoadedTensors loaded{reader->core(), reader->meta_json(), {}, reader->digest()};
  Rooms here, in_place;
  for (const SealedReader::Entry& entry : reader->tensors()) {
    const auto place = places.find(entry.name);
    const bool has_place = place != places.end();
    at::Tensor tensor = has_place ? place->second : at::empty(entry.shape, type_of(entry));
    (has_place ? in_place : here).add(entry.name, tensor);
    loaded.tensors.emplace_back(entry.name, std::move(tensor));
  }
  if (places.empty()) {
    reader->read_all(here.rooms);
    return loaded;
  }
  reader->pin();
  here.fill(*reader);
  loaded.fill_places = [reader, in_place = std::move(in_place)] { in_place.fill(*reader); };
  return loaded;
}

}  // namespace hushgrad
