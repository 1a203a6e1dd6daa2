// A ledger with an officer, a trainer, an approver, an auditor and a custodian, for tests.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "accounting/ledger/ledger.h"
#include "dpcore/keys/approval.h"
#include "dpcore/keys/utc_time.h"

namespace hushgrad::ledger_test {

using Key = std::shared_ptr<const SigningKey>;

inline Key new_key() { return std::make_shared<const SigningKey>(SigningKey::generate()); }

inline std::string in_seconds(std::int64_t seconds) { return utc_text(utc_now() + seconds); }

struct People {
  Key officer = new_key(), trainer = new_key(), approver = new_key(), auditor = new_key(), custodian = new_key(),
      stranger = new_key();

  /// Makes the ledger and everybody in it; grants last an hour and cover everything.
  std::shared_ptr<Ledger> found(const std::string& path) const {
    auto ledger = Ledger::open(path);
    ledger->identify(officer);
    ledger->found_access("olga");
    add(*ledger, "tom", trainer, Role::trainer);
    add(*ledger, "ann", approver, Role::approver);
    add(*ledger, "axel", auditor, Role::auditor);
    add(*ledger, "kim", custodian, Role::key_custodian);
    return ledger;
  }
  Key key_of(Role role) const {
    switch (role) {
      case Role::trainer: return trainer;
      case Role::approver: return approver;
      case Role::privacy_officer: return officer;
      case Role::auditor: return auditor;
      case Role::key_custodian: return custodian;
    }
    return nullptr;
  }
  static std::string name_of(Role role) {
    switch (role) {
      case Role::trainer: return "tom";
      case Role::approver: return "ann";
      case Role::privacy_officer: return "olga";
      case Role::auditor: return "axel";
      case Role::key_custodian: return "kim";
    }
    return "";
  }

 private:
  static void add(Ledger& ledger, const std::string& name, const Key& key, Role role) {
    ledger.add_actor({name, key->public_key()});
    ledger.grant({.name = name, .role = role, .expires = in_seconds(3600)});
  }
};

/// What the requester asks and the approver signs.
inline std::pair<Operation, std::vector<Approval>> approved(const Proposal& proposal, const Key& requester, const Key& approver,
                                                            std::int64_t lifetime = 600) {
  const Operation operation =
      make_operation(to_string(proposal.action), proposal.scope, "a test", requester->public_key().id(), lifetime);
  return {operation, {approve(operation, *approver)}};
}

inline void present(Ledger& ledger, const std::pair<Operation, std::vector<Approval>>& pair) {
  ledger.present(pair.first, pair.second);
}

}  // namespace hushgrad::ledger_test
