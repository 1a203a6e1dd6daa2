// The index at the head of a sealed payload: which tensor lies where. Rules in the spirit of safetensors.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "dpcore/sealed/sealed_file.h"

namespace hushgrad {

inline constexpr std::size_t kMaxIndexBytes = 64 * 1024 * 1024;

struct TensorIndex {
  std::string meta_json;
  std::vector<SealedReader::Entry> tensors;
};

/// Canonical JSON:
/// {"meta":"...","tensors":[{"begin":0,"dtype":"F32","end":16,"name":"w","shape":[2,2]},...]}.
/// InvalidArgument when a name, dtype, shape or length breaks the rules below, or the index passes
/// kMaxIndexBytes.
std::string build_index(const std::string& meta_json, std::span<const TensorDescription> tensors);

/// Reads an index as hostile input. SealError unless it is canonical JSON of exactly that form; names are
/// unique, 1..4096 bytes, without control characters; dtypes known; product(shape) * size of dtype == end -
/// begin without overflow; tensors follow each other from 0 to data_bytes without hole or overlap; and meta
/// is a JSON document.
TensorIndex parse_index(std::string_view text, std::uint64_t data_bytes);

}  // namespace hushgrad
