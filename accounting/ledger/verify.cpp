#include "accounting/ledger/verify.h"

#include "accounting/ledger/schema.h"
#include "accounting/ledger/table.h"
#include "dpcore/error.h"

namespace hushgrad::ledger {
namespace {

std::string integrity_fault(Database& database) {
  try {
    const std::string verdict = database.text("PRAGMA integrity_check(1)");
    return verdict == "ok" ? std::string() : message("the file is damaged: ", verdict);
  } catch (const LedgerError& error) {
    return error.what();
  }
}

}  // namespace

std::string replay(Database& database, State& state, const std::function<void(const Entry&)>& applied) {
  // An entry below the first would otherwise never be looked at.
  EntryReader reader(database, state.sequence > 0 ? state.sequence : INT64_MIN);
  std::string fault;
  while (const auto entry = reader.next(fault)) {
    if (fault.empty()) fault = state.apply(*entry);
    if (!fault.empty()) return fault;
    if (applied) applied(*entry);
  }
  return state.sequence > 0 ? std::string() : "it is missing";
}

VerifyResult verify_file(Database& database, const LedgerHead& known) {
  State state;
  std::string seen_again;
  std::string fault;
  try {
    Transaction transaction(database, false);
    fault = replay(database, state, [&](const Entry& entry) {
      if (entry.sequence == known.sequence) seen_again = to_hex(entry.hash);
    });
    if (fault.empty() && known.sequence > state.sequence) fault = "it was here before and is gone";
    if (!fault.empty()) return {false, state.sequence, state.sequence + 1, fault};
    if (known.sequence > 0 && seen_again != known.hash) {
      return {false, known.sequence - 1, known.sequence, "it, or one before it, was rewritten since it was read"};
    }
    fault = schema_fault(database);
  } catch (const LedgerError& error) {
    return {false, state.sequence, state.sequence + 1, error.what()};
  }
  if (fault.empty()) fault = integrity_fault(database);
  return {fault.empty(), state.sequence, 0, fault};
}

}  // namespace hushgrad::ledger
