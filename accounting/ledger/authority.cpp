#include "accounting/ledger/authority.h"

#include <unistd.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "accounting/access/digest.h"
#include "accounting/ledger/payload.h"

namespace hushgrad::ledger {
namespace {

using nlohmann::json;

std::string environment() {
  const char* named = std::getenv("HUSHGRAD_ENVIRONMENT");
  const std::string text = named == nullptr ? "" : named;
  // As it is kept: what was decided is decided again when it is read.
  return json::parse(json(text.substr(0, 256)).dump(-1, ' ', false, json::error_handler_t::replace)).get<std::string>();
}

// Tells hosts apart without naming them: the ledger may leave the house.
std::string host(const std::string& ledger_id) {
  char name[256] = {};
  if (gethostname(name, sizeof name - 1) != 0) return {};
  return hex_digest(ledger_id + "\n" + name).substr(0, 16);
}

std::string attributes_of(const AccessRequest& request) {
  json object = json::object();
  if (!request.environment.empty()) object["environment"] = request.environment;
  if (request.action == Action::train) {
    if (request.noise_multiplier) object["noise_multiplier"] = *request.noise_multiplier;
    if (!request.sensitivity.empty()) object["sensitivity"] = request.sensitivity;
    if (!request.accountant.empty()) object["accountant"] = request.accountant;
    if (request.insecure_seed) object["insecure_seed"] = true;
  }
  if (request.approvals > 0) object["approvals"] = request.approvals;
  return object.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string text_in(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

std::string names_of(const AccessState& access, const std::vector<Approval>& approvals, std::int64_t time) {
  std::string names;
  for (const Approval& approval : approvals) names += (names.empty() ? "" : ", ") + access.owner_of(approval.approver, time);
  return names.size() <= 1024 ? names : names.substr(0, 1024);
}

AccessDecision withheld(const std::string& word, const std::string& rule, const std::string& reason) {
  return {.allowed = false, .word = word, .reason = reason, .rule = rule, .policy = {}};
}

std::string way_out(const AccessRequest& request, const AccessDecision& decision) {
  const bool lacks_approval = decision.word == "too_few" || decision.rule == "approval";
  if (request.action != Action::train || !lacks_approval) {
    return "Ask a privacy officer (hushgrad access grant, hushgrad approve request), or see hushgrad policy test.";
  }
  return message("Ask for this run, hushgrad approve request train dataset='", request.subject, "' purpose='", request.purpose,
                 "' --reason ... --identity KEY; have somebody else sign it, hushgrad approve sign; and give both files to "
                 "PrivacyEngine as approvals.");
}

}  // namespace

Denied denial_of(const AccessRequest& request, const AccessDecision& decision) {
  const std::string about = request.subject.empty() ? "" : " on dataset '" + request.subject + "'";
  return Denied(decision.word, message("[ledger] Expected somebody who may ", to_string(request.action), about, ", received a request that rule '",
                                       decision.rule, "' denies: ", decision.reason, ". Nothing was done; the denial is on record. ",
                                       way_out(request, decision)));
}

void Authority::identify(std::shared_ptr<const SigningKey> key) {
  const std::lock_guard lock(mutex_);
  key_ = std::move(key);
  spending_.clear();
}

std::shared_ptr<const SigningKey> Authority::key() {
  const std::lock_guard lock(mutex_);
  return key_;
}

void Authority::present(const Operation& operation, const std::vector<Approval>& approvals) {
  static_cast<void>(to_text(operation));  // throws for fields outside their domain
  const std::lock_guard lock(mutex_);
  presented_.emplace_back(operation, approvals);
}

std::string Authority::actor(const State& state, std::int64_t time) {
  const std::lock_guard lock(mutex_);
  return key_ == nullptr || !state.access.on() ? "" : state.access.owner_of(key_->public_key().id(), time);
}

AccessRequest Authority::request_of(const Need& need, const std::string& plan_json) {
  AccessRequest request;
  request.action = need.action;
  request.actor = need.actor;
  request.subject = need.subject;
  request.purpose = need.purpose;
  request.environment = environment();
  const json plan = json::parse(plan_json, nullptr, false);
  if (!plan.is_object()) return request;
  if (plan.contains("noise_multiplier") && plan["noise_multiplier"].is_number()) request.noise_multiplier = plan["noise_multiplier"].get<double>();
  request.sensitivity = text_in(plan, "sensitivity");
  request.accountant = text_in(plan, "accountant");
  request.insecure_seed = text_in(plan, "random") == "insecure-seed";
  return request;
}

Authority::Outcome Authority::decide_on(const State& state, std::int64_t time, AccessRequest request, std::int64_t approvals) {
  const std::string claimed = request.actor;
  bool is_session = false;
  const std::string owner = key_ == nullptr ? "" : state.access.owner_of(key_->public_key().id(), time, &is_session);
  request.approvals = approvals;
  request.proof = owner.empty() || owner != claimed ? "" : is_session ? "oidc" : "key";
  return {request, decide(state.access, request, time)};
}

// The approval among those presented that fits what is about to happen. `word`: why one that fits does not hold.
std::optional<LedgerRecord> Authority::approval_for(AccessState& trial, const Batch& batch, std::int64_t time, const AccessRequest& request,
                                                    const std::vector<Item>& items, std::string& word) {
  const auto scope = scope_of(items);
  for (auto one = presented_.begin(); one != presented_.end(); ++one) {
    const auto& [operation, approvals] = *one;
    const bool fits = key_ != nullptr && operation.action == to_string(request.action) && operation.scope == scope &&
                      operation.requester == key_->public_key().id();
    if (!fits) continue;
    json texts = json::array();
    for (const Approval& approval : approvals) texts.push_back(json::parse(to_text(approval)));
    LedgerRecord record{"approval",
                        {{"action", operation.action}, {"actor", request.actor}, {"approvals", json{{"approvals", texts}}.dump()},
                         {"approvers", names_of(trial, approvals, time)}, {"operation", to_text(operation)},
                         {"reason", operation.reason}, {"subject", request.subject}}};
    try {
      check(record);
      trial.apply(record, batch.sequence() + 1, time);
    } catch (const Denied& denied) {
      word = denied.reason();
      continue;
    }
    return record;
  }
  return std::nullopt;
}

LedgerRecord Authority::decision_record(const State& state, const Outcome& outcome, const std::vector<Item>& items) const {
  const auto& [request, decision] = outcome;
  return {"audit",
          {{"action", to_string(request.action)}, {"actor", request.actor}, {"attributes", attributes_of(request)},
           {"covers", decision.allowed ? covers_of(items) : ""}, {"decision", decision.allowed ? "allowed" : "denied"},
           {"host", host(state.ledger_id)}, {"key", key_ == nullptr ? "" : key_->public_key().id()}, {"policy", decision.policy},
           {"purpose", request.purpose}, {"reason", decision.reason}, {"rule", decision.rule}, {"signature", ""},
           {"subject", request.subject}}};
}

void Authority::append_signed(const State& state, Batch& batch, LedgerRecord decision) const {
  if (key_ != nullptr) {
    const std::string text = signed_text(decision, state.ledger_id, batch.head());
    decision.fields["signature"] = hex_of(key_->sign("ledger decision", bytes_of(text)));
  }
  check(decision);
  batch.append("audit", decision);
}

std::optional<Denied> Authority::settle(const State& state, Batch& batch, const Outcome& outcome, const std::vector<Item>& items) {
  append_signed(state, batch, decision_record(state, outcome, items));
  if (!outcome.decision.allowed) return denial_of(outcome.request, outcome.decision);
  for (const Item& item : items) batch.append_as_it_is(item.kind, item.payload);
  return std::nullopt;
}

std::optional<Denied> Authority::act(State& state, Batch& batch, const std::vector<Item>& items) {
  const std::lock_guard lock(mutex_);
  if (!state.access.on()) {
    AccessState trial = state.access;
    for (const Item& item : items) {
      if (is_record(item.kind)) trial.apply(decode_record(item.kind, item.payload), batch.sequence() + 1, batch.now());
      batch.append_as_it_is(item.kind, item.payload);
    }
    return std::nullopt;
  }
  const auto need = state.need_of(items.front().kind, items.front().payload);
  if (!need) {
    // It speaks for itself; whether it says the truth is asked before it is written.
    AccessState trial = state.access;
    const LedgerRecord record = decode_record(items.front().kind, items.front().payload);
    try {
      trial.apply(record, batch.sequence() + 1, batch.now());
    } catch (const Denied& denied) {
      if (record.kind != "session") throw;
      append_refused_sign_in(state, batch, record.fields.at("actor"), record.fields.at("issuer"), record.fields.at("subject"), denied.reason());
      return denied;
    }
    for (const Item& item : items) batch.append_as_it_is(item.kind, item.payload);
    return std::nullopt;
  }
  const std::int64_t time = batch.now();
  std::string plan, run_id;
  if (items.front().kind == kRun) {
    const RunPayload run = decode_run(items.front().payload);
    plan = run.info.plan_json;
    run_id = run.run_id;
  }
  const AccessRequest request = request_of(*need, plan);
  AccessState trial = state.access;
  std::string word;
  const auto approval = approval_for(trial, batch, time, request, items, word);
  Outcome outcome = decide_on(state, time, request, approval ? trial.approval.approvers : 0);
  if (!outcome.decision.allowed && outcome.decision.word == "too_few" && !word.empty()) {
    outcome.decision = withheld(word, "approval", "the approvals that were presented do not hold (" + word + ")");
  }
  if (outcome.decision.allowed) {
    const std::size_t before = batch.entries().size();
    if (approval) batch.append("approval", *approval);
    try {
      for (const Item& item : items) {
        if (is_record(item.kind)) trial.apply(decode_record(item.kind, item.payload), batch.sequence() + 2, time);
      }
    } catch (const Denied& denied) {
      outcome.decision = withheld(denied.reason(), "access", "the rules of actors, grants and policies do not allow it");
      batch.take_back(before);
    }
  }
  if (outcome.decision.allowed && !run_id.empty()) spending_[run_id] = {outcome.request, outcome.decision};
  return settle(state, batch, outcome, items);
}

std::optional<Denied> Authority::permit(State& state, Batch& batch, const Need& need) {
  if (!state.access.on()) return std::nullopt;
  const std::lock_guard lock(mutex_);
  return settle(state, batch, decide_on(state, batch.now(), request_of(need, {}), 0), {});
}

std::optional<Denied> Authority::spend(State& state, Batch& batch, const Run& run) {
  if (!state.access.on()) return std::nullopt;
  const std::lock_guard lock(mutex_);
  const RunInfo& info = run.record.info;
  const auto known = spending_.find(run.record.run_id);
  const std::int64_t time = batch.now();
  if (known != spending_.end()) {
    known->second.decision = decide_on(state, time, known->second.request, known->second.request.approvals).decision;
    if (known->second.decision.allowed) return std::nullopt;
    return settle(state, batch, {known->second.request, known->second.decision}, {});
  }
  const Outcome outcome = decide_on(state, time, request_of({Action::train, info.dataset, info.purpose, info.actor}, info.plan_json), 0);
  auto denied = settle(state, batch, outcome, {});
  if (!denied) spending_[run.record.run_id] = {outcome.request, outcome.decision};
  return denied;
}

void Authority::forget(const std::string& run_id) {
  const std::lock_guard lock(mutex_);
  spending_.erase(run_id);
}

Denied Authority::deny(const State& state, Batch& batch, const Need& need, const std::string& rule, const std::string& reason) {
  const std::lock_guard lock(mutex_);
  AccessDecision decision = withheld(rule, rule, reason);
  if (state.access.policy() != nullptr) decision.policy = std::to_string(state.access.policy()->version);
  return *settle(state, batch, {request_of(need, {}), decision}, {});
}

void Authority::append_refused_sign_in(const State& state, Batch& batch, const std::string& actor, const std::string& issuer,
                                       const std::string& subject, const std::string& reason) const {
  AccessRequest request;
  request.actor = actor;
  AccessDecision decision = withheld(reason, "token", message("the token does not hold (", reason, ")"));
  if (state.access.policy() != nullptr) decision.policy = std::to_string(state.access.policy()->version);
  LedgerRecord record = decision_record(state, {request, decision}, {});
  record.fields["action"] = "sign_in";
  record.fields["attributes"] = json{{"issuer", issuer}, {"subject", subject}}.dump(-1, ' ', false, json::error_handler_t::replace);
  append_signed(state, batch, std::move(record));
}

void Authority::refuse_sign_in(const State& state, Batch& batch, const std::string& issuer, const std::string& subject, const std::string& reason) {
  const std::lock_guard lock(mutex_);
  append_refused_sign_in(state, batch, "", issuer, subject, reason);
}

std::optional<double> Authority::least_noise(const std::string& run_id) {
  const std::lock_guard lock(mutex_);
  const auto known = spending_.find(run_id);
  return known == spending_.end() ? std::nullopt : known->second.decision.min_noise_multiplier;
}

}  // namespace hushgrad::ledger
