// Tensors in and out of sealed files.
#pragma once

#include <ATen/ATen.h>

#include <string>
#include <utility>
#include <vector>

#include "dpcore/sealed/sealed_file.h"

namespace hushgrad {

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

/// Seals tensors of any device, layout stride and supported dtype (bool, integers, bf16, half, float, double, complex).
/// Sparse, quantised and meta tensors: Unsupported. Empty tensors and scalars are legal. Other errors: write_sealed().
void save_tensors(const std::string& path, const SealedCore& core, const std::string& meta_json, const NamedTensors& tensors,
                  const Keyring& keyring, bool overwrite);

struct LoadedTensors {
  SealedCore core;
  std::string meta_json;
  NamedTensors tensors;  // on the CPU, contiguous
};

/// Authenticates the whole file and reads everything.
LoadedTensors load_tensors(const std::string& path, const Keyring& keyring);

}  // namespace hushgrad
