#include "accounting/access/role.h"

#include <algorithm>

namespace hushgrad {
namespace {

struct ActionRow {
  Action action;
  const char* name;
  std::vector<Role> roles;
  bool approval;
  bool session;
};

constexpr auto kTrainer = Role::trainer;
constexpr auto kApprover = Role::approver;
constexpr auto kOfficer = Role::privacy_officer;
constexpr auto kAuditor = Role::auditor;
constexpr auto kCustodian = Role::key_custodian;

const std::vector<ActionRow>& rows() {
  static const std::vector<ActionRow> table = {
      {Action::train, "train", {kTrainer}, false, true},
      {Action::finish, "finish", {}, false, true},
      {Action::set_budget, "set_budget", {kOfficer}, false, false},
      {Action::raise_budget, "raise_budget", {kOfficer}, true, false},
      {Action::describe, "describe", {kOfficer}, false, false},
      {Action::add_purpose, "add_purpose", {kOfficer}, true, false},
      {Action::release_metrics, "release_metrics", {kTrainer, kOfficer}, false, true},
      {Action::release_checkpoint, "release_checkpoint", {kTrainer, kOfficer}, false, true},
      {Action::export_model, "export_model", {kTrainer, kOfficer}, true, true},
      {Action::export_ledger, "export_ledger", {kOfficer, kAuditor}, false, true},
      {Action::move, "move", {kOfficer}, true, false},
      {Action::repair, "repair", {kOfficer}, true, false},
      {Action::manage_access, "manage_access", {kOfficer}, false, false},
      {Action::publish_policy, "publish_policy", {kOfficer}, false, false},
      {Action::break_glass, "break_glass", {kTrainer, kApprover, kOfficer}, false, false},
      {Action::review, "review", {kOfficer, kAuditor}, false, false},
      {Action::record, "record", {kTrainer, kApprover, kOfficer, kCustodian}, false, true},
  };
  return table;
}

const ActionRow& row_of(Action action) {
  return *std::find_if(rows().begin(), rows().end(), [&](const ActionRow& row) { return row.action == action; });
}

bool is_pair(Role one, Role other, Role first, Role second) {
  return (one == first && other == second) || (one == second && other == first);
}

}  // namespace

const std::vector<Role>& all_roles() {
  static const std::vector<Role> roles = {kTrainer, kApprover, kOfficer, kAuditor, kCustodian};
  return roles;
}

const std::vector<Action>& all_actions() {
  static const std::vector<Action> actions = [] {
    std::vector<Action> found;
    for (const ActionRow& row : rows()) found.push_back(row.action);
    return found;
  }();
  return actions;
}

const char* to_string(Role role) {
  switch (role) {
    case Role::trainer: return "trainer";
    case Role::approver: return "approver";
    case Role::privacy_officer: return "privacy_officer";
    case Role::auditor: return "auditor";
    case Role::key_custodian: return "key_custodian";
  }
  return "";
}

const char* to_string(Action action) { return row_of(action).name; }

std::optional<Role> role_named(const std::string& name) {
  for (const Role role : all_roles()) {
    if (name == to_string(role)) return role;
  }
  return std::nullopt;
}

std::optional<Action> action_named(const std::string& name) {
  for (const ActionRow& row : rows()) {
    if (name == row.name) return row.action;
  }
  return std::nullopt;
}

bool may(Role role, Action action) {
  const auto& roles = row_of(action).roles;
  return std::find(roles.begin(), roles.end(), role) != roles.end();
}

bool conflict(Role one, Role other) { return one != other && !is_pair(one, other, kApprover, kOfficer); }

bool needs_approval(Action action) { return row_of(action).approval; }

bool session_suffices(Action action) { return row_of(action).session; }

}  // namespace hushgrad
