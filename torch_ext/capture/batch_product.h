// Losses over all pairs of samples and targets, which come from shapes that do not fit.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "torch_ext/compat.h"

namespace hushgrad {

/// The name of an operator that spreads a value of one row a sample along another dimension as long as the batch and joins it with
/// a constant there: outputs [B, 1] beside targets [B] become [B, B], and every sample's gradient then depends on all samples'
/// targets, which no derivative in the outputs shows. Nothing if there is none. What is spread beside other outputs (the norm of
/// each row) is left to the derivatives. A constant with as many elements as the batch has samples looks like targets.
std::optional<std::string> batch_product(const std::vector<NodePtr>& nodes, std::int64_t batch);

}  // namespace hushgrad
