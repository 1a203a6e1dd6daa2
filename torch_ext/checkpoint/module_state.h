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

/// Copies into the module, and the optimizer if one is given. Names and shapes must match exactly.
/// @throws SealError for a tree that is not a checkpoint's, InvalidArgument naming what is missing,
/// unexpected or of another shape; nothing is changed then.
void decode_state(const LoadedTensors& loaded, torch::nn::Module& module, torch::optim::Optimizer* optimizer);

}  // namespace hushgrad
