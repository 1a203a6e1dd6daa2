// Per-sample gradients of a table of rows.
#pragma once

#include <optional>

#include "torch_ext/capture/contribution.h"

namespace hushgrad {

/// What an embedding's contribution is made of: ids [B, T] int64 and backprops [B, T, d].
struct EmbeddingParts {
  at::Tensor ids, backprops;
};

/// Nothing if the contribution is another one.
std::optional<EmbeddingParts> embedding_parts(const Contribution& contribution);

}  // namespace hushgrad
