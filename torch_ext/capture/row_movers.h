// Operators that move rows to places that the data decides.
#pragma once

#include "torch_ext/capture/sites.h"

namespace hushgrad {

/// Whether rows of every graph with this structure stand where the proof of an earlier batch found them: no operator picks rows by
/// an index, or each one's index on record keeps to blocks of the same sample. Without that, who owns a row is a question to
/// ask anew in each batch (tokens routed to experts, packed sequences, joined graphs).
bool rows_stay(const Walk& walk, std::int64_t batch, bool batch_first);

/// The same question of one operator, the batch in dimension 0. True for operators that pick no rows.
bool row_stays(Node& node, std::int64_t batch);

}  // namespace hushgrad
