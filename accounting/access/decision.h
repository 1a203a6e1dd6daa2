// Whether somebody may do something now, and which rule says so.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "accounting/access/access_state.h"

namespace hushgrad {

struct AccessRequest {
  Action action = Action::train;
  std::string actor;
  std::string subject;      // the dataset; empty where there is none
  std::string purpose{};
  std::string environment{};  // as the process says: $HUSHGRAD_ENVIRONMENT
  std::string proof{};        // "key" or "oidc"; empty: nothing was proven
  std::int64_t approvals = 0;  // by others, for exactly this
  // Of a run's plan, for `train`:
  std::optional<double> noise_multiplier{};
  std::string sensitivity{}, accountant{};
  bool insecure_seed = false;
};

struct AccessDecision {
  bool allowed = false;
  std::string word;    // why not, as one word for programs; see Denied::reason
  std::string reason;  // the same for people
  std::string rule;    // that decided: "role", "approval", "policy:ID", "policy:default", "break_glass:SEQUENCE", ...
  std::string policy;  // version in force, empty without one
  std::optional<double> max_epsilon{}, min_noise_multiplier{};  // that hold while the run trains
  double delta = 0;
};

/// What holds without any policy: proof, a grant whose role may do it, and a second person where needs_approval().
AccessDecision decide_by_roles(const AccessState& access, const AccessRequest& request, std::int64_t time);

/// Roles first, then the policy in force: its first rule that fits decides, and without one that fits nothing is allowed.
/// A break-glass opens what an approval or the policy withholds; never what a role or a missing proof does.
AccessDecision decide(const AccessState& access, const AccessRequest& request, std::int64_t time);

}  // namespace hushgrad
