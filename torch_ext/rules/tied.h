// A table that is also an output layer's weight, as in most language models.
#pragma once

#include <memory>
#include <vector>

#include "torch_ext/capture/contribution.h"

namespace hushgrad {

/// Contribution to one parameter of a use, already in the parameter's own shape or its transpose.
struct TiedUse {
  std::unique_ptr<Contribution> contribution;
  bool transposed;  // the boundary is the parameter's transpose
};

/// The sum of embeddings and linear layers of one parameter [V, d], without instantiating B tables: with g_e, ids of the table and
/// g_l, a of the layer, both kinds' norms and the cross term
///   <G_e, G_l>_b = sum over t, s of g_l[s, id_t] (g_e[t] . a[s]).
/// Null, with `uses` as they were, if there is another kind among them or only one.
std::unique_ptr<Contribution> tie(std::vector<TiedUse>& uses);

}  // namespace hushgrad
