// Actors, grants, policy, approvals and break-glasses of a ledger, derived from its entries by applying one after the other.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "accounting/access/policy.h"
#include "accounting/access/role.h"
#include "accounting/ledger/dataset_info.h"
#include "dpcore/keys/signing.h"

namespace hushgrad {

/// Who can act. Times of this page: microseconds since 1970 UTC; 0 where there is none.
struct Actor {
  std::string name, team;
  std::string subject;  // "issuer#subject" of tokens that prove the same actor; empty: none do
  PublicKey key;
  std::int64_t sequence = 0;  // of the newest entry about it
  std::int64_t revoked = 0;   // that entry
};

/// A role on some datasets for some purposes for a while. Patterns: policy.h.
struct Grant {
  std::int64_t sequence = 0;
  std::string name;  // whose
  Role role = Role::trainer;
  std::string dataset, purpose;
  std::int64_t starts = 0, expires = 0;
  std::int64_t revoked = 0;  // the entry that ended it
  std::string granted_by, reason;
};

/// Somebody opened what a policy or a missing approval held closed, and said why.
struct BrokenGlass {
  std::int64_t sequence = 0;
  std::string actor;
  Action action = Action::train;
  std::string dataset, reason;
  std::int64_t time = 0, expires = 0, review_due = 0;
  std::int64_t reviewed = 0;  // the entry that reviews it
};

struct PolicyInForce {
  std::int64_t sequence = 0;
  Policy policy;
};

/// A key that stands for an actor for as long as a token of an identity provider did.
struct TokenSession {
  std::string actor;
  PublicKey key;
  std::int64_t expires = 0;
};

/// Who may issue tokens for whom.
struct IdentityProvider {
  std::string issuer, audience;
  std::int64_t sequence = 0;
};

/// What was approved in the entry before.
struct FreshApproval {
  std::int64_t sequence = 0;
  std::string action, requester, subject;  // requester: id of the key
  std::map<std::string, std::string> scope;
  std::int64_t approvers = 0;
};

class AccessState {
 public:
  /// From the first actor on nothing happens without proof.
  bool on() const { return !actors.empty(); }

  /// Takes note of an entry of one of the kinds of this page, or of an approval. Throws InvalidArgument, or Denied for an
  /// approval that does not hold, and then changes nothing. Times: that of the entry.
  void apply(const LedgerRecord& record, std::int64_t sequence, std::int64_t time);

  /// Null for nobody and for those who were revoked.
  const Actor* actor(const std::string& name) const;
  /// Whose key it is at that time: of an actor or of a session; empty when nobody's.
  std::string owner_of(const std::string& key_id, std::int64_t time, bool* is_session = nullptr) const;
  const PublicKey* key(const std::string& key_id) const;
  bool is_active(const Grant& grant, std::int64_t time) const;
  bool holds(const std::string& name, Role role, std::int64_t time) const;
  /// The keys of those who may approve something on the dataset now, for the purpose where one is named. An empty dataset stands for
  /// what concerns all: a grant for "*".
  std::vector<PublicKey> approvers(const std::string& dataset, const std::string& purpose, std::int64_t time) const;
  const BrokenGlass* open_glass(const std::string& actor, Action action, const std::string& dataset, std::int64_t time) const;
  bool may_combine(Role one, Role other) const;

  std::deque<Actor> actors;
  std::deque<Grant> grants;
  std::deque<BrokenGlass> glasses;
  std::deque<PolicyInForce> policies;  // the last is in force
  std::deque<IdentityProvider> providers;
  std::deque<TokenSession> sessions;
  std::set<std::string> used_nonces, used_tokens;
  FreshApproval approval;

  const Policy* policy() const { return policies.empty() ? nullptr : &policies.back().policy; }
  const PolicyInForce* policy_of_version(const std::string& version) const;

 private:
  void apply_actor(const LedgerRecord& record, std::int64_t sequence);
  void end_sessions(const std::string& name);
  void apply_grant(const LedgerRecord& record, std::int64_t sequence, std::int64_t time);
  void apply_revoke(const LedgerRecord& record, std::int64_t sequence, std::int64_t time);
  void apply_policy(const LedgerRecord& record, std::int64_t sequence, std::int64_t time);
  void apply_approval(const LedgerRecord& record, std::int64_t sequence, std::int64_t time);
  void apply_break_glass(const LedgerRecord& record, std::int64_t sequence, std::int64_t time);
  void apply_review(const LedgerRecord& record, std::int64_t sequence);
  void apply_provider(const LedgerRecord& record, std::int64_t sequence);
  void apply_session(const LedgerRecord& record, std::int64_t time);
};

/// A public key as one line of base64, and back. Throws InvalidArgument for anything else.
std::string key_line(const PublicKey& key);
PublicKey key_in(const std::string& line);

/// "2026-01-31T12:00:00Z" of microseconds; empty for 0. Back: throws InvalidArgument for another form.
std::string time_text(std::int64_t microseconds);
std::int64_t time_in(const std::string& text);

}  // namespace hushgrad
