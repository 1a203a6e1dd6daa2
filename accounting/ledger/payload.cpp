#include "accounting/ledger/payload.h"

#include <cmath>
#include <initializer_list>
#include <nlohmann/json.hpp>

#include "accounting/ledger/block.h"
#include "accounting/ledger/names.h"
#include "dpcore/error.h"

namespace hushgrad::ledger {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxPlanBytes = std::size_t{1} << 20;
constexpr int kMaxPlanDepth = 64;

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

json tree_of(const Event& event) { return json::parse(event.to_json()); }

Event event_of(const json& object) { return Event::from_json(object["event"].dump()); }

}  // namespace

std::string encode(const GenesisPayload& payload) {
  return json{{"ledger", payload.ledger_id}, {"schema", payload.schema}}.dump();
}

std::string encode(const BudgetPayload& payload) {
  return json{{"dataset", payload.dataset}, {"delta", payload.delta}, {"epsilon", payload.epsilon}}.dump();
}

std::string encode(const RunPayload& payload) {
  return json{{"actor", payload.info.actor},
              {"dataset", payload.info.dataset},
              {"plan", json::parse(payload.info.plan_json)},
              {"purpose", payload.info.purpose},
              {"run", payload.run_id}}
      .dump();
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

BudgetPayload decode_budget(const std::string& text) {
  const json object = parse_object(text, {"dataset", "delta", "epsilon"});
  BudgetPayload payload{text_of(object, "dataset"), number_of(object, "epsilon"), number_of(object, "delta")};
  check_name("dataset", payload.dataset, false);
  if (!(payload.epsilon >= 0) || std::isinf(payload.epsilon)) refuse("a finite epsilon >= 0", "another number");
  if (!(payload.delta > 0 && payload.delta < 1)) refuse("delta in (0, 1)", "another number");
  return payload;
}

RunPayload decode_run(const std::string& text) {
  const json object = parse_object(text, {"actor", "dataset", "plan", "purpose", "run"});
  RunInfo info{text_of(object, "dataset"), text_of(object, "purpose"), text_of(object, "actor"), {}};
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
