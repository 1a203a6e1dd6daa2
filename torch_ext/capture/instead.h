// Gradients in place of a node's own.
#pragma once

#include <torch/csrc/autograd/function_hook.h>

#include <utility>

#include "torch_ext/compat.h"

namespace hushgrad {

/// Puts gradients in place of those of a node that was not to run (its backprops were taken away), once.
struct InsteadOfNode final : torch::autograd::FunctionPostHook {
  explicit InsteadOfNode(variable_list gradients) : gradients(std::move(gradients)) {}
  variable_list operator()(const variable_list& outputs, const variable_list&) override {
    return gradients.empty() ? outputs : std::exchange(gradients, {});
  }
  variable_list gradients;
};

}  // namespace hushgrad
