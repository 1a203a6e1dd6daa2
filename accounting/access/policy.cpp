#include "accounting/access/policy.h"

#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>
#include <set>

#include "accounting/ledger/names.h"
#include "dpcore/error.h"
#include "dpcore/keys/utc_time.h"

namespace hushgrad {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxBytes = std::size_t{1} << 20;
constexpr int kMaxDepth = 16;
constexpr std::size_t kMaxRules = 1000;

[[noreturn]] void refuse(const std::string& where, const std::string& expected) {
  throw InvalidArgument(message("[policy] Expected ", expected, " at ", where, ", received something else. Compare the file with "
                                "the schema (hushgrad policy init shows an example)."));
}

// One object of the document: every key that is there must be asked for.
class Table {
 public:
  Table(const json& object, std::string where) : object_(object), where_(std::move(where)) {
    if (!object_.is_object()) refuse(where_, "a table");
  }

  const json* find(const char* key) {
    asked_.insert(key);
    const auto found = object_.find(key);
    return found == object_.end() ? nullptr : &*found;
  }
  std::string at(const char* key) const { return where_ + "." + key; }

  std::string text(const char* key, bool is_required) {
    const json* value = find(key);
    if (value == nullptr && !is_required) return {};
    if (value == nullptr || !value->is_string()) refuse(at(key), "a text");
    auto found = value->get<std::string>();
    ledger::check_name(at(key), found, !is_required);
    return found;
  }
  std::optional<double> number(const char* key) {
    const json* value = find(key);
    if (value == nullptr) return std::nullopt;
    if (!value->is_number() || !std::isfinite(value->get<double>())) refuse(at(key), "a finite number");
    return value->get<double>();
  }
  std::int64_t integer(const char* key, std::int64_t otherwise, std::int64_t low, std::int64_t high) {
    const json* value = find(key);
    if (value == nullptr) return otherwise;
    const bool fits = value->is_number_integer() && value->get<double>() >= static_cast<double>(low) &&
                      value->get<double>() <= static_cast<double>(high);
    if (!fits) refuse(at(key), message("an integer from ", low, " to ", high));
    return value->get<std::int64_t>();
  }
  bool boolean(const char* key, bool otherwise) {
    const json* value = find(key);
    if (value != nullptr && !value->is_boolean()) refuse(at(key), "true or false");
    return value == nullptr ? otherwise : value->get<bool>();
  }
  std::vector<std::string> texts(const char* key) {
    std::vector<std::string> found;
    const json* value = find(key);
    if (value == nullptr) return found;
    // An empty list would read as "none" and mean "any".
    if (!value->is_array() || value->empty()) refuse(at(key), "a list that is not empty");
    for (const json& one : *value) {
      if (!one.is_string()) refuse(at(key), "a list of texts");
      found.push_back(one.get<std::string>());
      ledger::check_name(at(key), found.back(), true);
    }
    return found;
  }
  template <typename Value>
  std::vector<Value> named(const char* key, const std::function<std::optional<Value>(const std::string&)>& find_value) {
    std::vector<Value> found;
    for (const std::string& name : texts(key)) {
      const auto value = find_value(name);
      if (!value) refuse(at(key), "known names only");
      found.push_back(*value);
    }
    return found;
  }
  void end() const {
    for (const auto& [key, value] : object_.items()) {
      if (asked_.count(key) == 0) refuse(where_, "known keys only");
    }
  }

 private:
  const json& object_;
  std::string where_;
  std::set<std::string> asked_;
};

std::optional<int> day_named(const std::string& name) {
  static const std::vector<std::string> days = {"mon", "tue", "wed", "thu", "fri", "sat", "sun"};
  for (std::size_t i = 0; i < days.size(); ++i) {
    if (days[i] == name) return static_cast<int>(i);
  }
  return std::nullopt;
}

std::optional<std::string> one_of(const std::string& name, std::initializer_list<const char*> known) {
  for (const char* candidate : known) {
    if (name == candidate) return name;
  }
  return std::nullopt;
}

// "hh:mm", up to 24:00.
std::optional<int> minute_of(const std::string& text) {
  const auto digit = [&](std::size_t at) { return text[at] >= '0' && text[at] <= '9'; };
  if (text.size() != 5 || text[2] != ':' || !digit(0) || !digit(1) || !digit(3) || !digit(4)) return std::nullopt;
  const int hours = 10 * (text[0] - '0') + text[1] - '0', minutes = 10 * (text[3] - '0') + text[4] - '0';
  const int total = 60 * hours + minutes;
  return minutes > 59 || total > 1440 ? std::nullopt : std::optional(total);
}

void read_hours(Table& table, PolicyRule& rule) {
  const std::string hours = table.text("hours", false);
  if (hours.empty()) return;
  const auto from = hours.size() == 11 && hours[5] == '-' ? minute_of(hours.substr(0, 5)) : std::nullopt;
  const auto to = from ? minute_of(hours.substr(6)) : std::nullopt;
  if (!to || *from == *to) refuse(table.at("hours"), "two times of the day (UTC) as 08:00-18:00");
  rule.from_minute = *from;
  rule.to_minute = *to;
}

std::int64_t read_time(Table& table, const char* key) {
  const std::string text = table.text(key, false);
  if (text.empty()) return 0;
  const auto seconds = utc_seconds(text);
  if (!seconds || *seconds < 1) refuse(table.at(key), "a time as 2026-01-31T12:00:00Z");
  return *seconds;
}

PolicyRequirements read_requirements(const json& object, const std::string& where) {
  Table table(object, where);
  PolicyRequirements require;
  require.max_epsilon = table.number("max_epsilon");
  if (require.max_epsilon && *require.max_epsilon < 0) refuse(table.at("max_epsilon"), "an epsilon >= 0");
  const auto delta = table.number("delta");
  if (require.max_epsilon.has_value() != delta.has_value()) refuse(where, "max_epsilon and delta together");
  if (delta && !(*delta > 0 && *delta < 1)) refuse(table.at("delta"), "a delta in (0, 1)");
  require.delta = delta.value_or(0);
  require.min_noise_multiplier = table.number("min_noise_multiplier");
  if (require.min_noise_multiplier.value_or(1) <= 0) refuse(table.at("min_noise_multiplier"), "a noise multiplier > 0");
  require.sensitivity = table.named<std::string>(
      "sensitivity", [](const std::string& name) { return one_of(name, {"certified", "empirical"}); });
  require.accountants = table.texts("accountants");
  require.insecure_seeds = table.boolean("insecure_seeds", false);
  require.approvals = table.integer("approvals", 0, 0, 16);
  require.max_epsilon_unapproved = table.number("max_epsilon_unapproved");
  if (require.max_epsilon_unapproved) {
    const bool fits = require.approvals > 0 && require.max_epsilon && *require.max_epsilon_unapproved >= 0 && *require.max_epsilon_unapproved <= *require.max_epsilon;
    if (!fits) refuse(table.at("max_epsilon_unapproved"), "an epsilon from 0 to max_epsilon, beside approvals");
  }
  require.proof = table.named<std::string>("proof", [](const std::string& name) { return one_of(name, {"key", "oidc"}); });
  table.end();
  return require;
}

PolicyRule read_rule(const json& object, const std::string& where) {
  Table table(object, where);
  PolicyRule rule;
  rule.id = table.text("id", true);
  const std::string effect = table.text("effect", true);
  if (effect != "allow" && effect != "deny") refuse(table.at("effect"), "allow or deny");
  rule.allow = effect == "allow";
  rule.actions = table.named<Action>("actions", action_named);
  rule.roles = table.named<Role>("roles", role_named);
  rule.actors = table.texts("actors");
  rule.datasets = table.texts("datasets");
  rule.purposes = table.texts("purposes");
  rule.environments = table.texts("environments");
  rule.days = table.named<int>("days", day_named);
  read_hours(table, rule);
  rule.not_before = read_time(table, "not_before");
  rule.not_after = read_time(table, "not_after");
  if (const json* require = table.find("require")) {
    if (!rule.allow) refuse(table.at("require"), "no requirements in a rule that denies");
    rule.require = read_requirements(*require, table.at("require"));
  }
  table.end();
  return rule;
}

void read_separation(const json& object, Policy& policy) {
  Table table(object, "separation");
  if (const json* pairs = table.find("insecure_combine")) {
    if (!pairs->is_array()) refuse("separation.insecure_combine", "a list of pairs of roles");
    for (const json& pair : *pairs) {
      const bool is_pair = pair.is_array() && pair.size() == 2 && pair[0].is_string() && pair[1].is_string();
      const auto one = is_pair ? role_named(pair[0].get<std::string>()) : std::nullopt;
      const auto other = is_pair ? role_named(pair[1].get<std::string>()) : std::nullopt;
      if (!one || !other) refuse("separation.insecure_combine", "pairs of roles");
      policy.insecure_combine.emplace_back(*one, *other);
    }
  }
  table.end();
}

void read_break_glass(const json& object, Policy& policy) {
  Table table(object, "break_glass");
  if (const json* roles = table.find("roles"); roles != nullptr && roles->is_array() && roles->empty()) {
    policy.break_glass_roles.clear();  // nobody
  } else if (roles != nullptr) {
    policy.break_glass_roles = table.named<Role>("roles", role_named);
  }
  policy.break_glass_seconds = 60 * table.integer("max_minutes", 60, 1, 7 * 24 * 60);
  policy.review_seconds = 3600 * table.integer("review_hours", 72, 1, 90 * 24);
  table.end();
}

void check_ids(const Policy& policy) {
  std::set<std::string> seen;
  for (const PolicyRule& rule : policy.rules) {
    if (!seen.insert(rule.id).second) refuse("rule", "another id for every rule");
  }
}

json parse_document(const std::string& text) {
  if (text.size() > kMaxBytes) refuse("the document", message("at most ", kMaxBytes, " bytes"));
  bool too_deep = false;
  const auto watch = [&](int depth, json::parse_event_t, json&) {
    too_deep = too_deep || depth > kMaxDepth;
    return !too_deep;
  };
  json document = json::parse(text, watch, false);
  if (too_deep || !document.is_object()) refuse("the document", "a table, not nested deeper than 16");
  return document;
}

}  // namespace

bool matches(const std::string& pattern, const std::string& text) {
  std::size_t at = 0, in = 0, star = std::string::npos, resume = 0;
  while (in < text.size()) {
    if (at < pattern.size() && pattern[at] == '*') {
      star = at++;
      resume = in;
    } else if (at < pattern.size() && pattern[at] == text[in]) {
      ++at;
      ++in;
    } else if (star != std::string::npos) {
      at = star + 1;
      in = ++resume;
    } else {
      return false;
    }
  }
  while (at < pattern.size() && pattern[at] == '*') ++at;
  return at == pattern.size();
}

const PolicyRule* Policy::rule(const std::string& id) const {
  for (const PolicyRule& candidate : rules) {
    if (candidate.id == id) return &candidate;
  }
  return nullptr;
}

Policy parse_policy(const std::string& text) {
  const json document = parse_document(text);
  Table table(document, "policy");
  Policy policy;
  policy.version = table.integer("version", 0, 1, std::int64_t{1} << 53);
  if (policy.version == 0) refuse("policy.version", "an integer >= 1");
  policy.name = table.text("name", false);
  if (const json* separation = table.find("separation")) read_separation(*separation, policy);
  if (const json* grants = table.find("grants")) {
    Table limits(*grants, "grants");
    policy.max_grant_seconds = 3600 * limits.integer("max_hours", 0, 1, 24 * 366 * 10);
    limits.end();
  }
  if (const json* glass = table.find("break_glass")) read_break_glass(*glass, policy);
  const json* rules = table.find("rule");
  if (rules != nullptr && (!rules->is_array() || rules->size() > kMaxRules)) refuse("policy.rule", "a list of rules");
  for (std::size_t i = 0; rules != nullptr && i < rules->size(); ++i) {
    policy.rules.push_back(read_rule((*rules)[i], message("rule[", i, "]")));
  }
  table.end();
  check_ids(policy);
  return policy;
}

}  // namespace hushgrad
