// Who may do what in a ledger with access rules, and which duties one person may not hold together.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace hushgrad {

enum class Role { trainer, approver, privacy_officer, auditor, key_custodian };

/// What somebody asks to do. The names are those of records, policies and approvals.
enum class Action {
  train,               // begin a run and take its steps
  finish,              // say how many steps one's own run took, and that it ended: takes proof and nothing else
  set_budget,          // a first cap, or a lower one
  raise_budget,        // a cap that lets more through than the one in force
  describe,            // a description of a dataset that opens nothing
  add_purpose,         // one that opens a purpose or prolongs the retention
  release_metrics,     // numbers leave
  release_checkpoint,  // a sealed checkpoint leaves
  export_model,        // a model leaves
  export_ledger,
  move,                // the ledger goes to another place
  repair,              // a ledger that was put back is taken into use
  manage_access,       // actors, grants, revocations, identity providers
  publish_policy,
  break_glass,
  review,              // of a break-glass
  record,              // any other paper
};

const std::vector<Role>& all_roles();
const std::vector<Action>& all_actions();
/// As records spell it: "privacy_officer", "raise_budget".
const char* to_string(Role role);
const char* to_string(Action action);
std::optional<Role> role_named(const std::string& name);
std::optional<Action> action_named(const std::string& name);

/// The table: whether a grant of `role` may open `action`. Nothing else opens it.
bool may(Role role, Action action);

/// Separation of duties: whether one actor may not hold both. Only approver and privacy officer go together: an officer
/// may approve what another one asks for. Who trains approves nothing; who holds keys neither repairs nor approves; who
/// audits does nothing else.
bool conflict(Role one, Role other);

/// Whether a second person has to approve whatever the policy says.
bool needs_approval(Action action);

/// Whether a token of an identity provider proves enough for it. Managing, approving and repairing need the actor's own key.
bool session_suffices(Action action);

}  // namespace hushgrad
