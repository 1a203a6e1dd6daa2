// Everything that differs between the torch releases hushgrad compiles against (2.11 to 2.14) lives here.
#pragma once

#include <torch/csrc/autograd/edge.h>
#include <torch/csrc/autograd/function.h>

#include <utility>

namespace hushgrad {

using torch::autograd::Edge;
using torch::autograd::Node;
using torch::autograd::variable_list;

/// c10::intrusive_ptr<Node> since 2.13, std::shared_ptr<Node> before.
using NodePtr = decltype(std::declval<Edge>().function);

}  // namespace hushgrad
