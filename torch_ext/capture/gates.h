// Operators whose derivative jumps instead of moving: relu, abs, clamp, max, sort, ...
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "torch_ext/capture/loss_check.h"

namespace hushgrad {

/// The name of an operator between the outputs and the loss that decides by one sample what another one's gradient is: relu or abs
/// of a batch mean (flooding), a hinge on pairs, the largest loss of the batch. Second derivatives are zero there and show nothing.
///
/// Forward-mode derivatives by two backward passes: with v living on some samples, d/ds <J^T s, v> = J v shows which entries of an
/// operator's input those samples move. An entry that two samples move is coupled; so is a line of entries of several samples
/// out of which one is selected. 1 + 2*ceil(log2 batch) passes. The graph behind the outputs must be cut.
std::optional<std::string> coupling_gate(const std::vector<NodePtr>& nodes, const std::vector<WatchedOutput>& outputs, std::int64_t batch);

/// The name of an operator that takes rows by a condition, where a mean follows: it divides by how many the batch keeps.
std::optional<std::string> counted_selection(const std::vector<NodePtr>& nodes, std::int64_t batch);

}  // namespace hushgrad
