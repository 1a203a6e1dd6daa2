#include "accounting/ledger/payload.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <initializer_list>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "accounting/ledger/block.h"
#include "accounting/ledger/names.h"
#include "accounting/ledger/period.h"
#include "dpcore/error.h"

namespace hushgrad::ledger {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxPlanBytes = std::size_t{1} << 20;
constexpr int kMaxPlanDepth = 64;

// The fields of each kind of record; all are texts. Where there are two forms, the first is the plain paper of schema 2.
using Forms = std::vector<std::set<std::string>>;
const std::map<std::string, Forms, std::less<>> kRecords = {
    {"release", {{"actor", "artifact", "digest", "run"}, {"actor", "artifact", "dataset", "digest", "kind", "recipient", "run"}}},
    {"approval",
     {{"action", "actor", "reason", "subject"},
      {"action", "actor", "approvals", "approvers", "operation", "reason", "subject"}}},
    {"policy", {{"actor", "digest", "policy", "version"}, {"actor", "digest", "key", "policy", "signature", "version"}}},
    {"audit",
     {{"action", "actor", "decision", "policy", "reason", "subject"},
      {"action", "actor", "attributes", "covers", "decision", "host", "key", "policy", "purpose", "reason", "rule", "signature",
       "subject"}}},
    {"moved", {{"actor", "to"}}},
    {"arrived", {{"actor", "at"}}},
    {"checkpoint", {{"digest", "run"}}},
    {"repair", {{"first", "hash", "reason", "second", "sequence"}}},
    {"actor", {{"actor", "key", "name", "subject", "team"}}},
    {"grant", {{"actor", "dataset", "expires", "name", "purpose", "reason", "role", "starts"}}},
    {"revoke", {{"actor", "reason", "target"}}},
    {"break_glass", {{"action", "actor", "dataset", "expires", "reason", "review_due"}}},
    {"review", {{"actor", "glass", "reason", "verdict"}}},
    {"provider", {{"actor", "algorithms", "audience", "issuer", "jwks", "mfa"}}},
    {"session", {{"actor", "audience", "expires", "issuer", "key", "subject", "token"}}},
};

// Canonical JSON in a text.
const std::set<std::string, std::less<>> kDocuments = {"approvals", "attributes", "jwks", "operation", "policy"};
// Longer than a name.
const std::set<std::string, std::less<>> kLines = {"approvers", "key", "reason", "signature", "target"};
constexpr std::size_t kMaxLine = 1024;

[[noreturn]] void refuse(const std::string& expected, const std::string& received) {
  throw InvalidArgument(message("[ledger] Expected a payload with ", expected, ", received ", received,
                                ". Verify the ledger."));
}

json parse_object(const std::string& text, std::initializer_list<const char*> keys) {
  json object = json::parse(text, nullptr, false);
  if (!object.is_object() || object.size() != keys.size()) refuse("exactly its own keys", "something else");
  for (const char* key : keys) {
    if (!object.contains(key)) refuse(message("a key '", key, "'"), "none");
  }
  return object;
}

std::string text_of(const json& object, const char* key) {
  if (!object[key].is_string()) refuse(message("a text under '", key, "'"), "another type");
  return object[key].get<std::string>();
}

std::int64_t integer_of(const json& object, const char* key) {
  const json& value = object[key];
  if (!value.is_number_integer() || value.get<double>() > 9.2e18) {
    refuse(message("an integer under '", key, "'"), "something else");
  }
  return value.get<std::int64_t>();
}

double number_of(const json& object, const char* key) {
  if (!object[key].is_number()) refuse(message("a number under '", key, "'"), "another type");
  return object[key].get<double>();
}

std::string id_of(const json& object, const char* key) {
  std::string id = text_of(object, key);
  if (id.size() != 32 || id.find_first_not_of("0123456789abcdef") != std::string::npos) {
    refuse(message("32 hex digits under '", key, "'"), "another text");
  }
  return id;
}

bool is_plain(const BudgetLimit& limit) {
  return limit.purpose.empty() && limit.actor.empty() && limit.set_by.empty() && limit.warning == 0 && limit.team.empty() &&
         limit.period.empty();
}

bool has_schema_2_form(const BudgetLimit& limit) { return limit.team.empty() && limit.period.empty(); }

std::vector<std::string> texts_of(const json& object, const char* key) {
  if (!object[key].is_array()) refuse(message("a list under '", key, "'"), "another type");
  std::vector<std::string> texts;
  for (const json& text : object[key]) {
    if (!text.is_string()) refuse(message("texts under '", key, "'"), "another type");
    texts.push_back(text.get<std::string>());
  }
  return texts;
}

json tree_of(const Event& event) { return json::parse(event.to_json()); }

Event event_of(const json& object) { return Event::from_json(object["event"].dump()); }

}  // namespace

std::string encode(const GenesisPayload& payload) {
  return json{{"ledger", payload.ledger_id}, {"schema", payload.schema}}.dump();
}

std::string encode(const BudgetLimit& limit) {
  json object = {{"dataset", limit.dataset}, {"delta", limit.delta}, {"epsilon", limit.epsilon}};
  if (is_plain(limit)) return object.dump();
  object["actor"] = limit.actor;
  object["purpose"] = limit.purpose;
  object["set_by"] = limit.set_by;
  object["warning"] = limit.warning;
  if (has_schema_2_form(limit)) return object.dump();
  object["period"] = limit.period;
  object["team"] = limit.team;
  return object.dump();
}

std::string encode(const DatasetInfo& info) {
  return json{{"actor", info.actor},
              {"adjacency", info.adjacency},
              {"dataset", info.dataset},
              {"parents", info.parents},
              {"purposes", info.purposes},
              {"retention", info.retention},
              {"size_class", info.size_class},
              {"transformation", info.transformation},
              {"unit", info.unit}}
      .dump();
}

std::string encode(const LedgerRecord& record) { return json(record.fields).dump(); }

std::string encode(const RunPayload& payload) {
  json object = {{"actor", payload.info.actor},
                 {"dataset", payload.info.dataset},
                 {"plan", json::parse(payload.info.plan_json)},
                 {"purpose", payload.info.purpose},
                 {"run", payload.run_id}};
  if (!payload.info.team.empty()) object["team"] = payload.info.team;
  return object.dump();
}

std::string encode(const EventPayload& payload) {
  return json{{"event", tree_of(payload.event)}, {"run", payload.run_id}}.dump();
}

std::string encode(const ChargePayload& payload) { return json{{"event", payload.event_sequence}}.dump(); }

std::string encode(const RefusalPayload& payload) {
  return json{{"budget", payload.budget_sequence}, {"event", tree_of(payload.event)}, {"run", payload.run_id}}.dump();
}

std::string encode(const FinishPayload& payload) {
  return json{{"run", payload.run_id}, {"status", payload.status}}.dump();
}

std::string encode(const ReservePayload& payload) {
  return json{{"count", payload.count}, {"event", payload.event_sequence}, {"holder", payload.holder}}.dump();
}

std::string encode(const SettlePayload& payload) {
  return json{{"reservation", payload.reservation}, {"used", payload.used}}.dump();
}

std::string encode(const MigrationPayload& payload) {
  return json{{"from", payload.from}, {"to", payload.to}}.dump();
}

GenesisPayload decode_genesis(const std::string& text) {
  const json object = parse_object(text, {"ledger", "schema"});
  return {id_of(object, "ledger"), integer_of(object, "schema")};
}

BudgetLimit decode_budget(const std::string& text) {
  const json any = json::parse(text, nullptr, false);
  const bool short_form = any.is_object() && any.size() == 3;
  const bool long_form = any.is_object() && any.size() == 9;
  const json object = short_form  ? parse_object(text, {"dataset", "delta", "epsilon"})
                      : long_form ? parse_object(text, {"actor", "dataset", "delta", "epsilon", "period", "purpose", "set_by", "team", "warning"})
                                  : parse_object(text, {"actor", "dataset", "delta", "epsilon", "purpose", "set_by", "warning"});
  BudgetLimit limit{text_of(object, "dataset"), number_of(object, "epsilon"), number_of(object, "delta")};
  if (!short_form) {
    limit.purpose = text_of(object, "purpose");
    limit.actor = text_of(object, "actor");
    limit.warning = number_of(object, "warning");
    limit.set_by = text_of(object, "set_by");
  }
  if (long_form) {
    limit.period = text_of(object, "period");
    limit.team = text_of(object, "team");
  }
  check(limit);
  if (long_form == has_schema_2_form(limit)) refuse("the form that says all, and no more", "another one");
  if (short_form != is_plain(limit)) refuse("the short form where it says all", "the long one");
  return limit;
}

DatasetInfo decode_dataset(const std::string& text) {
  const json object = parse_object(text, {"actor", "adjacency", "dataset", "parents", "purposes", "retention", "size_class",
                                          "transformation", "unit"});
  DatasetInfo info;
  info.dataset = text_of(object, "dataset");
  info.unit = text_of(object, "unit");
  info.adjacency = text_of(object, "adjacency");
  info.size_class = text_of(object, "size_class");
  info.purposes = texts_of(object, "purposes");
  info.retention = integer_of(object, "retention");
  info.parents = texts_of(object, "parents");
  info.transformation = text_of(object, "transformation");
  info.actor = text_of(object, "actor");
  check(info);
  return info;
}

LedgerRecord decode_record(const std::string& kind, const std::string& text) {
  const json object = json::parse(text, nullptr, false);
  if (!object.is_object()) refuse("an object", "something else");
  LedgerRecord record{kind, {}};
  for (const auto& [key, value] : object.items()) record.fields[key] = text_of(object, key.c_str());
  check(record);
  return record;
}

void check(const BudgetLimit& limit) {
  check_name("dataset", limit.dataset, false);
  check_name("purpose", limit.purpose, true);
  check_name("actor", limit.actor, true);
  check_name("set_by", limit.set_by, true);
  check_name("team", limit.team, true);
  check_period(limit.period);
  if (!std::isfinite(limit.epsilon) || limit.epsilon < 0) {
    throw InvalidArgument(message("[ledger] Expected a finite epsilon >= 0, received ", limit.epsilon,
                                  ". Give the cap of the dataset."));
  }
  if (!(limit.delta > 0 && limit.delta < 1)) {
    throw InvalidArgument(message("[ledger] Expected delta in (0, 1), received ", limit.delta,
                                  ". A common choice is far below 1 / (number of people)."));
  }
  if (!std::isfinite(limit.warning) || limit.warning < 0) {
    throw InvalidArgument(message("[ledger] Expected a finite warning level >= 0, received ", limit.warning, "."));
  }
}

void check(const DatasetInfo& info) {
  check_name("dataset", info.dataset, false);
  check_name("unit", info.unit, true);
  check_name("size_class", info.size_class, true);
  check_name("transformation", info.transformation, true);
  check_name("actor", info.actor, true);
  for (const std::string& purpose : info.purposes) check_name("purpose", purpose, false);
  for (const std::string& parent : info.parents) check_name("parent", parent, false);
  const bool is_known = info.adjacency.empty() || info.adjacency == "add_or_remove_one" ||
                        info.adjacency == "replace_one" || info.adjacency == "zero_out";
  if (!is_known) {
    throw InvalidArgument("[ledger] Expected adjacency add_or_remove_one, replace_one or zero_out, received another text.");
  }
  if (info.retention < 0) throw InvalidArgument("[ledger] Expected a retention time after 1970, received one before.");
}

void check(const LedgerRecord& record) {
  const auto forms = kRecords.find(record.kind);
  if (forms == kRecords.end()) {
    throw InvalidArgument("[ledger] Expected a record of a known kind (docs/ledger.md), received another.");
  }
  std::set<std::string> keys;
  for (const auto& [key, value] : record.fields) keys.insert(key);
  if (std::find(forms->second.begin(), forms->second.end(), keys) == forms->second.end()) {
    std::string expected;
    for (const std::string& key : forms->second.back()) expected += (expected.empty() ? "" : ", ") + key;
    throw InvalidArgument(message("[ledger] Expected a ", record.kind, " with the fields ", expected, ", received others."));
  }
  for (const auto& [key, value] : record.fields) {
    const bool is_plain_audit = record.kind == "audit" && key == "policy";
    if (kDocuments.count(key) > 0 && !is_plain_audit) {
      if (canonical_plan(value) != value) {
        throw InvalidArgument(message("[ledger] Expected '", key, "' as canonical JSON, received another form."));
      }
    } else {
      check_name(key, value, true, kLines.count(key) > 0 ? kMaxLine : kMaxNameBytes);
    }
  }
  if (record.kind == "repair" && (record.fields.at("first") == record.fields.at("second") ||
                                  record.fields.at("first").empty() || record.fields.at("second").empty())) {
    throw InvalidArgument("[ledger] Expected two different people for a repair, received one. Have a second one confirm.");
  }
}

bool is_record(std::string_view kind) { return kRecords.find(kind) != kRecords.end(); }

std::int64_t needed_schema(const LedgerRecord& record) {
  static const std::set<std::string, std::less<>> old = {"release", "approval", "policy", "audit", "checkpoint", "moved", "arrived", "repair"};
  if (old.count(record.kind) == 0) return 3;
  return record.fields.size() == kRecords.find(record.kind)->second.front().size() ? 2 : 3;
}

RunPayload decode_run(const std::string& text) {
  const json any = json::parse(text, nullptr, false);
  const bool has_team = any.is_object() && any.contains("team");
  const json object = has_team ? parse_object(text, {"actor", "dataset", "plan", "purpose", "run", "team"})
                               : parse_object(text, {"actor", "dataset", "plan", "purpose", "run"});
  RunInfo info{text_of(object, "dataset"), text_of(object, "purpose"), text_of(object, "actor"), {}};
  if (has_team) {
    info.team = text_of(object, "team");
    check_name("team", info.team, false);
  }
  check_name("dataset", info.dataset, false);
  check_name("purpose", info.purpose, true);
  check_name("actor", info.actor, true);
  info.plan_json = canonical_plan(object["plan"].dump());
  return {id_of(object, "run"), std::move(info)};
}

EventPayload decode_event(const std::string& text) {
  const json object = parse_object(text, {"event", "run"});
  return {id_of(object, "run"), event_of(object)};
}

ChargePayload decode_charge(const std::string& text) {
  return {integer_of(parse_object(text, {"event"}), "event")};
}

RefusalPayload decode_refusal(const std::string& text) {
  const json object = parse_object(text, {"budget", "event", "run"});
  return {id_of(object, "run"), integer_of(object, "budget"), event_of(object)};
}

FinishPayload decode_finish(const std::string& text) {
  const json object = parse_object(text, {"run", "status"});
  FinishPayload payload{id_of(object, "run"), text_of(object, "status")};
  if (payload.status != "completed" && payload.status != "failed") refuse("a known status", "another text");
  return payload;
}

ReservePayload decode_reserve(const std::string& text) {
  const json object = parse_object(text, {"count", "event", "holder"});
  ReservePayload payload{integer_of(object, "event"), integer_of(object, "count"), id_of(object, "holder")};
  if (payload.count < 1 || payload.count > kMaxBlock) refuse(message("a count from 1 to ", kMaxBlock), "another one");
  return payload;
}

SettlePayload decode_settle(const std::string& text) {
  const json object = parse_object(text, {"reservation", "used"});
  return {integer_of(object, "reservation"), integer_of(object, "used")};
}

MigrationPayload decode_migration(const std::string& text) {
  const json object = parse_object(text, {"from", "to"});
  return {integer_of(object, "from"), integer_of(object, "to")};
}

std::string canonical_plan(const std::string& plan_json) {
  const auto refuse_plan = [](const std::string& received) {
    throw InvalidArgument(message("[ledger] Expected plan_json to be a JSON object of at most ", kMaxPlanBytes,
                                  " bytes, nested at most ", kMaxPlanDepth, " deep, received ", received,
                                  ". Describe the run in a small object."));
  };
  if (plan_json.empty()) return "{}";
  if (plan_json.size() > kMaxPlanBytes) refuse_plan(message(plan_json.size(), " bytes"));
  bool too_deep = false;
  const auto watch = [&](int depth, json::parse_event_t, json&) {
    too_deep = too_deep || depth > kMaxPlanDepth;
    return !too_deep;
  };
  const json plan = json::parse(plan_json, watch, false);
  if (too_deep || !plan.is_object()) refuse_plan(too_deep ? "a deeper one" : "something else");
  std::string canonical = plan.dump();
  // 1e9 becomes 1000000000.0: what is stored must pass this check again when it is read.
  if (canonical.size() > kMaxPlanBytes) refuse_plan(message(canonical.size(), " bytes"));
  return canonical;
}

}  // namespace hushgrad::ledger
