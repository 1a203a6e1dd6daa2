// The policy of a ledger: which of the requests that roles permit are allowed, when, where and under what conditions.
// One JSON document (docs/access.md, schema: python/hushgrad/policy/policy.schema.json); TOML and YAML are other spellings.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "accounting/access/role.h"

namespace hushgrad {

/// Whether `text` is `pattern`, in which each `*` stands for any bytes, also none. Every other byte stands for itself.
bool matches(const std::string& pattern, const std::string& text);

/// What a rule that allows asks for beside its conditions. Where something is not given it is not asked for.
struct PolicyRequirements {
  std::optional<double> max_epsilon;           // of one run, at `delta`; a hard cap while it trains
  std::optional<double> max_epsilon_unapproved;  // the cap of a run that fewer than `approvals` have approved; none: it is denied
  double delta = 0;                            // in (0, 1) where max_epsilon is given
  std::optional<double> min_noise_multiplier;  // of the plan, and of every Gaussian event that is charged
  std::vector<std::string> sensitivity;        // "certified", "empirical"
  std::vector<std::string> accountants;        // "pld", "rdp", ...
  bool insecure_seeds = false;                 // whether randomness that can be repeated is allowed
  std::int64_t approvals = 0;                  // by how many others
  std::vector<std::string> proof;              // "key", "oidc"; empty: any that the action takes
};

/// Conditions: an empty list is always met.
struct PolicyRule {
  std::string id;
  bool allow = false;
  std::vector<Action> actions;
  std::vector<Role> roles;                // that the actor holds for this request
  std::vector<std::string> actors, datasets, purposes, environments;  // patterns
  std::vector<int> days;                  // 0 Monday to 6 Sunday, UTC
  int from_minute = 0, to_minute = 1440;  // of the day, UTC; from > to goes over midnight
  std::int64_t not_before = 0, not_after = 0;  // seconds since 1970; 0: none
  PolicyRequirements require;

  /// The cap of a run that so many others have approved.
  std::optional<double> cap(std::int64_t approvals) const {
    return approvals >= require.approvals ? require.max_epsilon : require.max_epsilon_unapproved;
  }
};

struct Policy {
  std::int64_t version = 0;  // >= 1
  std::string name;
  std::vector<PolicyRule> rules;                              // the first that fits decides; none: denied
  std::vector<std::pair<Role, Role>> insecure_combine;        // duties one person may hold together here
  std::int64_t max_grant_seconds = 0;                         // 0: no limit
  std::vector<Role> break_glass_roles{Role::privacy_officer};
  std::int64_t break_glass_seconds = 3600;                    // at most
  std::int64_t review_seconds = 72 * 3600;                    // until it has to be reviewed

  const PolicyRule* rule(const std::string& id) const;
};

/// Throws InvalidArgument that names the place for text that is not JSON, larger than 1 MiB or nested deeper than 16, for
/// unknown or missing keys, and for values outside their domain.
Policy parse_policy(const std::string& json);

}  // namespace hushgrad
