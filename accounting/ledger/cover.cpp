#include "accounting/ledger/cover.h"

#include <charconv>
#include <nlohmann/json.hpp>

#include "accounting/access/digest.h"
#include "dpcore/error.h"

namespace hushgrad::ledger {
namespace {

using nlohmann::json;

constexpr std::size_t kMostItems = 4096;

std::string framed(std::string_view text) {
  std::string frame;
  for (int shift = 56; shift >= 0; shift -= 8) frame += static_cast<char>(text.size() >> shift & 255);
  return frame.append(text);
}

bool says_who(const std::string& kind, const std::string& key) {
  if (kind == "budget") return key == "set_by";
  if (kind == "run") return key != "dataset" && key != "purpose";  // its id is drawn when it begins
  if (kind == "repair") return key == "first" || key == "second" || key == "reason";
  return key == "actor";
}

std::string scope_name(const std::string& key, std::size_t number) {
  return number == 0 ? key : message(key, ".", number + 1);
}

std::size_t count_in(const std::string& covers) {
  if (covers.empty()) return 0;
  std::size_t count = 0;
  const std::size_t colon = covers.find(':');
  const auto [end, error] = std::from_chars(covers.data(), covers.data() + std::min(colon, covers.size()), count);
  const bool fits = error == std::errc() && colon != std::string::npos && end == covers.data() + colon && count >= 1 && count <= kMostItems;
  if (!fits) throw InvalidArgument("[access] Expected a decision that says what it covers, received another text.");
  return count;
}

}  // namespace

std::string covers_of(const std::vector<Item>& items) {
  if (items.empty()) return {};
  std::string text;
  for (const Item& item : items) text += framed(item.kind) + framed(item.payload);
  return message(items.size(), ":", hex_digest(text));
}

std::map<std::string, std::string> scope_of(const std::vector<Item>& items) {
  std::map<std::string, std::string> scope;
  for (std::size_t number = 0; number < items.size(); ++number) {
    const json object = json::parse(items[number].payload);
    for (const auto& [key, value] : object.items()) {
      if (says_who(items[number].kind, key)) continue;
      scope[scope_name(key, number)] = value.is_string() ? value.get<std::string>() : value.dump();
    }
  }
  return scope;
}

std::string signed_text(const LedgerRecord& decision, const std::string& ledger_id, const Hash& previous) {
  json object = decision.fields;
  object.erase("signature");
  object["ledger"] = ledger_id;
  object["previous"] = to_hex(previous);
  return object.dump();
}

Cover cover_of(const LedgerRecord& decision, const FreshApproval* approval) {
  const auto& fields = decision.fields;
  const auto action = action_named(fields.at("action"));
  if (!action) throw InvalidArgument("[access] Expected a decision about a known action, received another.");
  Cover cover;
  cover.action = *action;
  cover.actor = fields.at("actor");
  cover.subject = fields.at("subject");
  cover.purpose = fields.at("purpose");
  cover.covers = fields.at("covers");
  cover.rule = fields.at("rule");
  cover.policy = fields.at("policy");
  cover.left = count_in(cover.covers);
  if (approval != nullptr) {
    cover.scope = approval->scope;
    cover.approvals = approval->approvers;
  }
  return cover;
}

std::string Cover::take(const Need& need, Item item) {
  if (left == 0) return "nobody was allowed to write it";
  if (need.action != action) return "the decision before it is about another action";
  if (need.actor != actor) return "the decision before it is of somebody else";
  if (need.subject != subject || need.purpose != purpose) {
    return "the decision before it is about another dataset or purpose";
  }
  items.push_back(std::move(item));
  if (--left > 0) return {};
  if (covers_of(items) != covers) return "it is not what was allowed";
  if (scope && *scope != scope_of(items)) return "it is not what was approved";
  return {};
}

std::optional<Account> Cover::cap_of(const AccessState& access) const {
  const PolicyInForce* in_force = rule.rfind("policy:", 0) == 0 ? access.policy_of_version(policy) : nullptr;
  const PolicyRule* decided = in_force == nullptr ? nullptr : in_force->policy.rule(rule.substr(7));
  const auto cap = decided == nullptr ? std::nullopt : decided->cap(approvals);
  if (!cap) return std::nullopt;
  Account account;
  account.budget = Budget{};
  account.budget->epsilon = *cap;
  account.budget->delta = decided->require.delta;
  account.budget->sequence = in_force->sequence;
  return account;
}

}  // namespace hushgrad::ledger
