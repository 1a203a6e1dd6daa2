#include "accounting/ledger/verify.h"

#include "dpcore/error.h"

namespace hushgrad::ledger {
std::string replay(Store& store, State& state, const std::function<void(const Entry&)>& applied) {
  std::string found;
  // An entry below the first would otherwise never be looked at.
  store.read(state.sequence > 0 ? state.sequence : INT64_MIN, INT64_MAX, [&](const Entry& entry, const std::string& fault) {
    found = fault.empty() ? state.apply(entry) : fault;
    if (found.empty() && applied) applied(entry);
    return found.empty();
  });
  if (!found.empty()) return found;
  return state.sequence > 0 ? std::string() : "it is missing";
}

VerifyResult verify_store(Store& store, const LedgerHead& known) {
  State state;
  std::string seen_again;
  std::string fault;
  try {
    StoreTransaction transaction(store, false);
    fault = replay(store, state, [&](const Entry& entry) {
      if (entry.sequence == known.sequence) seen_again = to_hex(entry.hash);
    });
    if (fault.empty() && known.sequence > state.sequence) fault = "it was here before and is gone";
    if (!fault.empty()) return {false, state.sequence, state.sequence + 1, fault};
    if (known.sequence > 0 && seen_again != known.hash) {
      return {false, known.sequence - 1, known.sequence, "it, or one before it, was rewritten since it was read"};
    }
    fault = store.schema_fault();
  } catch (const LedgerError& error) {
    return {false, state.sequence, state.sequence + 1, error.what()};
  }
  if (fault.empty()) fault = store.integrity_fault();
  return {fault.empty(), state.sequence, 0, fault};
}

}  // namespace hushgrad::ledger
