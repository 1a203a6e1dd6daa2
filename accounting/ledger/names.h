// What people may call a dataset, a purpose or themselves.
#pragma once

#include <cstddef>
#include <string_view>

namespace hushgrad::ledger {

constexpr std::size_t kMaxNameBytes = 256;

/// Throws InvalidArgument unless `name` is valid UTF-8 of at most max_bytes bytes, without control characters
/// (C0, DEL, C1), line separators or marks that turn the direction of text, and without a space at either end: two
/// names that look alike in a report must not be two budgets. `what` names the argument in the message; the name
/// itself is not repeated there.
void check_name(std::string_view what, std::string_view name, bool may_be_empty, std::size_t max_bytes = kMaxNameBytes);

}  // namespace hushgrad::ledger
