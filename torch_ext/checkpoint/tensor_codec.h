// Tensors in and out of sealed files.
#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "dpcore/sealed/sealed_file.h"

namespace hushgrad {

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

/// Seals tensors of any device, layout stride and supported dtype (bool, integers, float8, bf16, half, float, double, complex).
/// Sparse, quantised and meta tensors: Unsupported. Empty tensors and scalars are legal. Nothing is visible at
/// `path` before publish(). Other errors: SealedWriter.
SealedWriter write_tensors(const std::string& path, const SealedCore& core, const std::string& meta_json,
                           const NamedTensors& tensors, const KeyProvider& keyring, const SealOptions& options = {});

/// The dtype that PyTorch spells so: "float32". Unsupported for those that a state cannot hold.
at::ScalarType type_of_torch_name(const std::string& name);

/// The dtype of a tensor in a file. SealError where PyTorch has none.
at::ScalarType type_of(const SealedReader::Entry& entry);

/// Tensors of a file by name, and memory where each belongs: on the CPU, contiguous, of its dtype and shape.
using Places = std::map<std::string, at::Tensor>;

struct LoadedTensors {
  SealedCore core;
  std::string meta_json;
  NamedTensors tensors;  // on the CPU, contiguous
  std::string digest;    // of the file
  std::function<void()> fill_places = [] {};  // once; SealError or IoError, and the places are zero, if the file changed meanwhile
};

/// Authenticates the whole file and reads everything but what has a place, which only fill_places() changes. `trusted`: decides
/// about digest() before any tensor is read, and throws to refuse; if it returns true, the file is also held against that digest,
/// which stops even who has the key.
LoadedTensors load_tensors(const std::string& path, const KeyProvider& keyring,
                           const std::function<bool(const SealedReader&)>& trusted = {},
                           const std::function<Places(const SealedReader&)>& places_of = {});

}  // namespace hushgrad
