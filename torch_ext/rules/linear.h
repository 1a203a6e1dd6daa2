// Per-sample gradients of a product with a matrix of parameters, for every rule that meets one.
#pragma once

#include <memory>
#include <optional>

#include "torch_ext/capture/contribution.h"
#include "torch_ext/capture/rows.h"

namespace hushgrad {

/// g_b^T a_b over the rows of sample b. activations: [R, d], backprops: [R, p], R = B*T rows in the order `rows` says.
/// boundary_is_in_out: the boundary is [d, p], as the transposed weight of addmm; else [p, d].
std::unique_ptr<Contribution> linear_contribution(at::Tensor activations, at::Tensor backprops, RowMap rows, std::int64_t batch,
                                                  bool boundary_is_in_out);

/// What a linear contribution is made of: activations [B, T, d] and backprops [B, T, p].
struct LinearParts {
  at::Tensor activations, backprops;
  bool boundary_is_in_out;
};

/// Nothing if the contribution is another one, or already instantiated.
std::optional<LinearParts> linear_parts(const Contribution& contribution);

}  // namespace hushgrad
