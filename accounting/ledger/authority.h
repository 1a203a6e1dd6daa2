// Who acts through a handle, and the decisions about what they do: nothing is written that access rules do not allow, and
// every decision is.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "accounting/access/decision.h"
#include "accounting/ledger/cover.h"
#include "accounting/ledger/session.h"
#include "accounting/ledger/state.h"
#include "dpcore/error.h"
#include "dpcore/keys/approval.h"
#include "dpcore/keys/signing.h"

namespace hushgrad::ledger {

/// Thread-safe. Called inside a write of the session.
class Authority {
 public:
  void identify(std::shared_ptr<const SigningKey> key);
  std::shared_ptr<const SigningKey> key();
  /// Kept until an action on exactly this scope uses it, or the handle closes.
  void present(const Operation& operation, const std::vector<Approval>& approvals);

  /// Appends the items when they are allowed, with the decision, and with the approval it rests on. Otherwise appends only
  /// that it was denied, and returns why. Without access rules: appends the items.
  /// Throws InvalidArgument, and appends nothing, for items that make no sense.
  std::optional<Denied> act(State& state, Batch& batch, const std::vector<Item>& items);
  /// The same for something that leaves no entry of its own.
  std::optional<Denied> permit(State& state, Batch& batch, const Need& need);
  /// The same for a run that is about to spend: proven once a handle, and checked against grants and policy each time.
  std::optional<Denied> spend(State& state, Batch& batch, const Run& run);
  /// The actor whose key this handle holds; empty without access rules or without a key of theirs.
  std::string actor(const State& state, std::int64_t time);
  /// What was decided about a run that is about to spend never got on record.
  void forget(const std::string& run_id);
  /// Appends that something else than access rules denied it.
  Denied deny(const State& state, Batch& batch, const Need& need, const std::string& rule, const std::string& reason);
  /// Appends that somebody's token does not hold; `reason` is one word.
  void refuse_sign_in(const State& state, Batch& batch, const std::string& issuer, const std::string& subject, const std::string& reason);
  /// The least noise multiplier that the policy lets this run charge.
  std::optional<double> least_noise(const std::string& run_id);
  /// What would be asked, and with what a plan says.
  static AccessRequest request_of(const Need& need, const std::string& plan_json);

 private:
  struct Outcome {
    AccessRequest request;
    AccessDecision decision;
  };
  Outcome decide_on(const State& state, std::int64_t time, AccessRequest request, std::int64_t approvals);
  std::optional<Denied> settle(const State& state, Batch& batch, const Outcome& outcome, const std::vector<Item>& items);
  void append_refused_sign_in(const State& state, Batch& batch, const std::string& actor, const std::string& issuer, const std::string& subject,
                              const std::string& reason) const;
  void append_signed(const State& state, Batch& batch, LedgerRecord decision) const;
  LedgerRecord decision_record(const State& state, const Outcome& outcome, const std::vector<Item>& items) const;
  std::optional<LedgerRecord> approval_for(AccessState& trial, const Batch& batch, std::int64_t time, const AccessRequest& request,
                                           const std::vector<Item>& items, std::string& word);

  std::mutex mutex_;
  std::shared_ptr<const SigningKey> key_;
  std::vector<std::pair<Operation, std::vector<Approval>>> presented_;
  std::map<std::string, Outcome> spending_;  // run -> how it was allowed
};

/// What a denied request tells its caller.
Denied denial_of(const AccessRequest& request, const AccessDecision& decision);

}  // namespace hushgrad::ledger
