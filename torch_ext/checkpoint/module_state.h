// The state tree of docs/formats/checkpoint.md for torch::nn modules and torch::optim optimizers.
#pragma once

#include <torch/torch.h>

#include <string>

#include "torch_ext/checkpoint/tensor_codec.h"

namespace hushgrad {

/// Parameters and buffers by their dotted names, and the optimizer as Python's state_dict() has it. Appends
/// the tensors and returns the JSON that refers to them. @throws Unsupported for optimizers other than SGD,
/// Adam and AdamW.
std::string encode_state(const torch::nn::Module& module, const torch::optim::Optimizer* optimizer,
                         NamedTensors& tensors);

/// Where tensors of the file may be decrypted into place: memory of the module that nobody shares, of their dtype and shape, on the
/// CPU and contiguous. None where a shape differs, so that decode_state() can refuse with nothing changed.
Places places_of(const SealedReader& reader, const torch::nn::Module& module);

/// Copies into the module, and the optimizer if one is given. Names and shapes must match exactly. What has its place already
/// is filled when everything else was checked.
/// @throws SealError for a tree that is not a checkpoint's, InvalidArgument naming what is missing,
/// unexpected or of another shape; nothing is changed then. What fill_places() throws.
void decode_state(const LoadedTensors& loaded, torch::nn::Module& module, torch::optim::Optimizer* optimizer);

}  // namespace hushgrad
