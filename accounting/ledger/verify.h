// Reading a chain from its first entry, for daily use and for the auditor.
#pragma once

#include <functional>
#include <string>

#include "accounting/ledger/records.h"
#include "accounting/ledger/state.h"
#include "accounting/ledger/store.h"

namespace hushgrad::ledger {

/// Applies every stored entry after state.sequence. Empty on success; otherwise what is wrong with entry
/// state.sequence + 1. `applied` (may be empty) is called after each entry. A chain without entries is at fault.
std::string replay(Store& store, State& state, const std::function<void(const Entry&)>& applied);

/// Checks everything: the chain first, so that the first bad entry is named, then `known` (an entry that was seen in
/// this file before; sequence 0 for none), the schema, and the storage's own check.
VerifyResult verify_store(Store& store, const LedgerHead& known);

}  // namespace hushgrad::ledger
