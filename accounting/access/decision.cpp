#include "accounting/access/decision.h"

#include <algorithm>

#include "dpcore/error.h"

namespace hushgrad {
namespace {

constexpr std::int64_t kSecond = 1'000'000;

AccessDecision denied(std::string word, std::string rule, std::string reason) {
  return {.allowed = false, .word = std::move(word), .reason = std::move(reason), .rule = std::move(rule), .policy = {}};
}

AccessDecision allowed(std::string rule) {
  return {.allowed = true, .word = {}, .reason = {}, .rule = std::move(rule), .policy = {}};
}

bool asks_for_dataset(const AccessRequest& request) {
  return !(request.subject.empty() && (request.action == Action::record || request.action == Action::review ||
                                       request.action == Action::break_glass));
}

bool fits_purpose(const Grant& grant, const AccessRequest& request) {
  return (request.purpose.empty() && request.action != Action::train) || matches(grant.purpose, request.purpose);
}

// Why this grant does not open the request; empty when it does.
const char* fault_of(const AccessState& access, const Grant& grant, const AccessRequest& request, std::int64_t time) {
  if (grant.revoked) return "revoked";
  if (time < grant.starts) return "not_yet";
  if (!access.is_active(grant, time)) return "expired";
  if (asks_for_dataset(request) && !matches(grant.dataset, request.subject)) return "other_dataset";
  if (!fits_purpose(grant, request)) return "other_purpose";
  return "";
}

std::vector<Role> roles_for(const AccessState& access, const AccessRequest& request, std::int64_t time, std::string& word) {
  std::vector<Role> roles;
  word = "no_role";
  for (const Grant& grant : access.grants) {
    if (grant.name != request.actor || !may(grant.role, request.action)) continue;
    word = fault_of(access, grant, request, time);
    if (word.empty()) roles.push_back(grant.role);
  }
  return roles;
}

template <typename Value>
bool has(const std::vector<Value>& list, const Value& value) {
  return list.empty() || std::find(list.begin(), list.end(), value) != list.end();
}

bool any_matches(const std::vector<std::string>& patterns, const std::string& text) {
  return patterns.empty() || std::any_of(patterns.begin(), patterns.end(), [&](const auto& one) { return matches(one, text); });
}

// 1970-01-01 was a Thursday.
bool in_time(const PolicyRule& rule, std::int64_t time) {
  const std::int64_t seconds = time / kSecond;
  const bool early = rule.not_before > 0 && seconds < rule.not_before;
  const bool late = rule.not_after > 0 && seconds >= rule.not_after;
  const int minute = static_cast<int>(seconds % 86400 / 60);
  const bool over_midnight = rule.from_minute > rule.to_minute;
  const bool in_hours = over_midnight ? minute >= rule.from_minute || minute < rule.to_minute
                                      : minute >= rule.from_minute && minute < rule.to_minute;
  return !early && !late && in_hours && has(rule.days, static_cast<int>((seconds / 86400 + 3) % 7));
}

// Only a rule that names one of these decides it: a policy cannot lock out whoever could replace it by mistake.
bool is_way_out(Action action) {
  return action == Action::publish_policy || action == Action::manage_access || action == Action::break_glass ||
         action == Action::review;
}

bool fits(const PolicyRule& rule, const AccessRequest& request, const std::vector<Role>& roles, std::int64_t time) {
  const bool fits_role = rule.roles.empty() ||
                         std::any_of(roles.begin(), roles.end(), [&](Role role) { return has(rule.roles, role); });
  const bool fits_action = is_way_out(request.action) ? !rule.actions.empty() && has(rule.actions, request.action)
                                                      : has(rule.actions, request.action);
  return fits_action && fits_role && any_matches(rule.actors, request.actor) &&
         any_matches(rule.datasets, request.subject) && any_matches(rule.purposes, request.purpose) &&
         any_matches(rule.environments, request.environment) && in_time(rule, time);
}

// What of the requirements is not met; empty when all is.
std::string unmet(const PolicyRequirements& require, const AccessRequest& request) {
  if (!has(require.proof, request.proof)) return "it asks for another proof";
  if (request.action != Action::train) return {};
  if (request.insecure_seed && !require.insecure_seeds) return "randomness that can be repeated is not allowed";
  if (!has(require.sensitivity, request.sensitivity)) return "it asks for another kind of sensitivity";
  if (!has(require.accountants, request.accountant)) return "it asks for another accountant";
  if (require.min_noise_multiplier && !(request.noise_multiplier && *request.noise_multiplier >= *require.min_noise_multiplier)) {
    return message("it asks for a noise multiplier of at least ", *require.min_noise_multiplier);
  }
  return {};
}

AccessDecision decide_by_policy(const Policy& policy, const AccessRequest& request, const std::vector<Role>& roles,
                                std::int64_t time) {
  for (const PolicyRule& rule : policy.rules) {
    if (!fits(rule, request, roles, time)) continue;
    const std::string name = "policy:" + rule.id;
    if (!rule.allow) return denied("policy", name, "a rule of the policy denies it");
    if (const std::string why = unmet(rule.require, request); !why.empty()) return denied("policy", name, why);
    const bool is_capped = request.action == Action::train && rule.require.max_epsilon_unapproved;
    if (request.approvals < rule.require.approvals && !is_capped) {
      return denied("too_few", name, message("it asks for ", rule.require.approvals, " approvals, there are ", request.approvals));
    }
    AccessDecision decision = allowed(name);
    decision.max_epsilon = rule.cap(request.approvals);
    decision.delta = rule.require.delta;
    decision.min_noise_multiplier = rule.require.min_noise_multiplier;
    return decision;
  }
  return denied("policy", "policy:default", "no rule of the policy allows it");
}

std::string glass_rule(const BrokenGlass& glass) { return message("break_glass:", glass.sequence); }

}  // namespace

AccessDecision decide_by_roles(const AccessState& access, const AccessRequest& request, std::int64_t time) {
  if (!access.on()) return allowed("no access rules");
  if (access.actor(request.actor) == nullptr) return denied("unknown_actor", "actor", "nobody of this name may act here");
  if (request.proof.empty()) return denied("no_proof", "proof", "who acts was not proven with a key of this ledger");
  if (request.proof != "key" && !session_suffices(request.action)) {
    return denied("no_proof", "proof", "a token is not enough for this; use the actor's own key");
  }
  if (request.action == Action::finish) return allowed("own run");
  std::string word;
  if (roles_for(access, request, time, word).empty()) {
    return denied(word, "role", message("no grant opens it (", word, ")"));
  }
  if (!needs_approval(request.action) || request.approvals > 0) return allowed("role");
  if (const auto* glass = access.open_glass(request.actor, request.action, request.subject, time)) return allowed(glass_rule(*glass));
  return denied("too_few", "approval", "somebody else has to approve it");
}

AccessDecision decide(const AccessState& access, const AccessRequest& request, std::int64_t time) {
  AccessDecision decision = decide_by_roles(access, request, time);
  const Policy* policy = access.policy();
  if (policy == nullptr) return decision;
  decision.policy = std::to_string(policy->version);
  if ((!decision.allowed && decision.word != "too_few") || request.action == Action::finish) return decision;
  std::string word;
  AccessDecision judged = decide_by_policy(*policy, request, roles_for(access, request, time, word), time);
  judged.policy = decision.policy;
  if (judged.allowed) {
    // What is missing stays missing, and what a broken glass opened stays red.
    if (!decision.allowed || decision.rule != "role") judged = {.allowed = decision.allowed, .word = decision.word, .reason = decision.reason, .rule = decision.rule, .policy = decision.policy, .max_epsilon = judged.max_epsilon, .min_noise_multiplier = judged.min_noise_multiplier, .delta = judged.delta};
    return judged;
  }
  if (const auto* glass = access.open_glass(request.actor, request.action, request.subject, time)) {
    judged = allowed(glass_rule(*glass));
    judged.policy = decision.policy;
    return judged;
  }
  return is_way_out(request.action) && judged.rule == "policy:default" ? decision : judged;
}

}  // namespace hushgrad
