// The bond between a decision and what it allows: an audit entry, signed by whoever acts, names the entries that follow it.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "accounting/access/decision.h"
#include "accounting/ledger/account.h"
#include "accounting/ledger/chain.h"

namespace hushgrad::ledger {

/// An entry before it has a place.
struct Item {
  std::string kind, payload;
};

/// What writing an entry takes with access rules.
struct Need {
  Action action = Action::record;
  std::string subject{}, purpose{};
  std::string actor{};  // whom the entry names as the one who acts
};

/// The field `covers` of the decision: "<how many>:<SHA-384 over their kinds and payloads>"; empty for none.
std::string covers_of(const std::vector<Item>& items);

/// What people approve: every field of the entries that says what happens, and none that says who does it.
std::map<std::string, std::string> scope_of(const std::vector<Item>& items);

/// What whoever acts signs, in the context "ledger decision": the decision, bound to this ledger and to the entry before.
std::string signed_text(const LedgerRecord& decision, const std::string& ledger_id, const Hash& previous);

/// What the newest decision allows, until it is used up.
struct Cover {
  Action action = Action::record;
  std::string actor, subject, purpose, covers, rule, policy;
  std::optional<std::map<std::string, std::string>> scope;  // of the approval that it rests on
  std::int64_t approvals = 0;                               // by how many others
  std::size_t left = 0;
  std::vector<Item> items;

  /// The next entry. Empty when it is allowed; otherwise what is wrong with it.
  std::string take(const Need& need, Item item);
  /// The cap on a run that begins under this decision.
  std::optional<Account> cap_of(const AccessState& access) const;
};

/// From the fields of an allowed decision. Throws InvalidArgument for others.
Cover cover_of(const LedgerRecord& decision, const FreshApproval* approval);

}  // namespace hushgrad::ledger
