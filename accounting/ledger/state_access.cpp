// What access rules ask of the entries of a chain; nothing in a ledger without them.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "accounting/access/digest.h"
#include "accounting/ledger/payload.h"
#include "accounting/ledger/state.h"
#include "dpcore/error.h"

namespace hushgrad::ledger {
namespace {

[[noreturn]] void nonsense(const std::string& why) { throw InvalidArgument(why); }

bool lets_more_through(const Budget& before, const BudgetLimit& now) {
  return now.epsilon > before.epsilon || now.delta > before.delta;
}

bool opens(const DatasetInfo& before, const DatasetInfo& now) {
  if (before.retention > 0 && (now.retention == 0 || now.retention > before.retention)) return true;
  if (before.purposes.empty()) return false;
  return now.purposes.empty() || std::any_of(now.purposes.begin(), now.purposes.end(), [&](const std::string& purpose) {
    return std::find(before.purposes.begin(), before.purposes.end(), purpose) == before.purposes.end();
  });
}

Action release_action(const std::string& what) {
  return what == "model" ? Action::export_model : what == "metrics" ? Action::release_metrics : Action::release_checkpoint;
}

// What was asked, as the decision says. Its attributes are claims of whoever acted.
AccessRequest request_in(const LedgerRecord& decision, const Cover& cover) {
  const auto object = nlohmann::json::parse(decision.fields.at("attributes"));
  const auto text = [&](const char* key) {
    const auto found = object.find(key);
    return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
  };
  AccessRequest request;
  request.action = cover.action;
  request.actor = cover.actor;
  request.subject = cover.subject;
  request.purpose = cover.purpose;
  request.environment = text("environment");
  request.sensitivity = text("sensitivity");
  request.accountant = text("accountant");
  const auto noise = object.find("noise_multiplier"), seed = object.find("insecure_seed");
  if (noise != object.end() && noise->is_number()) request.noise_multiplier = noise->get<double>();
  request.insecure_seed = seed != object.end() && *seed == true;
  return request;
}

// Entries that need no decision of their own: they follow from a run that has one, speak for themselves, or deny.
bool speaks_for_itself(const LedgerRecord& record) {
  const auto& fields = record.fields;
  // Whoever may train may keep what was trained; opening it takes the dataset's key.
  if (record.kind == "session" || record.kind == "arrived" || record.kind == "checkpoint") return true;
  if (record.kind == "approval") return fields.count("operation") > 0;
  return record.kind == "audit" && (fields.count("covers") > 0 || fields.at("decision") == "denied");
}

}  // namespace

Need State::need_of_run(const std::string& run_id) {
  const RunInfo& info = runs[known_run(run_id)].record.info;
  return {Action::finish, info.dataset, info.purpose, info.actor};
}

std::optional<Need> State::need_of(std::string_view kind, const std::string& payload) {
  if (kind == kRun) {
    const RunInfo info = decode_run(payload).info;
    return Need{Action::train, info.dataset, info.purpose, info.actor};
  }
  if (kind == kFinish) return need_of_run(decode_finish(payload).run_id);
  if (kind == kSettle) {
    const auto found = reservations.find(decode_settle(payload).reservation);
    if (found == reservations.end()) nonsense("it settles a block that is not open");
    return need_of_run(runs[event_entries.at(found->second.event_sequence).run].record.run_id);
  }
  if (kind == kBudget) {
    const BudgetLimit limit = decode_budget(payload);
    const Account* account = account_of(limit);
    const bool raises = account != nullptr && account->budget && lets_more_through(*account->budget, limit);
    return Need{raises ? Action::raise_budget : Action::set_budget, limit.dataset, {}, limit.set_by};
  }
  if (kind == kDataset) {
    const DatasetInfo info = decode_dataset(payload);
    const Dataset* known = find_dataset(info.dataset);
    const bool widens = known != nullptr && known->info && opens(*known->info, info);
    return Need{widens ? Action::add_purpose : Action::describe, info.dataset, {}, info.actor};
  }
  if (!is_record(kind)) return std::nullopt;
  const LedgerRecord record = decode_record(std::string(kind), payload);
  if (speaks_for_itself(record)) return std::nullopt;
  const auto& fields = record.fields;
  const auto of = [&](Action action) { return Need{action, {}, {}, fields.at("actor")}; };
  if (kind == "repair") return Need{Action::repair, {}, {}, fields.at("first")};
  if (kind == "moved") return of(Action::move);
  if (kind == "actor" || kind == "grant" || kind == "revoke" || kind == "provider") return of(Action::manage_access);
  if (kind == "policy" && fields.count("signature") > 0) return of(Action::publish_policy);
  if (kind == "review") return of(Action::review);
  if (kind == "break_glass") return Need{Action::break_glass, fields.at("dataset"), {}, fields.at("actor")};
  if (kind != "release") return of(Action::record);
  Need need = of(fields.count("kind") > 0 ? release_action(fields.at("kind")) : Action::release_checkpoint);
  const Run* run = find_run(fields.at("run"));
  if (run != nullptr) need.purpose = run->record.info.purpose;
  need.subject = fields.count("dataset") > 0 ? fields.at("dataset") : run != nullptr ? run->record.info.dataset : "";
  return need;
}

void State::check_cover(const Entry& entry) {
  if (!access.on()) return;
  const auto need = need_of(entry.kind, entry.payload);
  if (!need) {
    if (cover_.left > 0) nonsense("it lies between a decision and what that allows");
    return;
  }
  // The first actor makes itself the officer; from then on every entry needs a decision.
  if (access.grants.empty() && entry.kind == "grant") {
    const LedgerRecord record = decode_record(entry.kind, entry.payload);
    if (record.fields.at("role") == "privacy_officer" && record.fields.at("name") == access.actors.front().name) return;
  }
  if (std::string fault = cover_.take(*need, {entry.kind, entry.payload}); !fault.empty()) nonsense(fault);
}

// Signature, role, second person and policy: what was decided is decided again.
void State::apply_audit(const Entry& entry, const LedgerRecord& record) {
  const auto& fields = record.fields;
  if (!access.on() || fields.count("covers") == 0 || fields.at("decision") != "allowed") return;
  const std::string& key_id = fields.at("key");
  bool is_session = false;
  if (access.owner_of(key_id, entry.time, &is_session) != fields.at("actor")) nonsense("its key is not that of its actor");
  if (entry.sequence > trusted) {
    const std::string text = signed_text(record, ledger_id, entry.previous);
    const bool is_signed = access.key(key_id)->verify("ledger decision", bytes_of(text), bytes_from_hex(fields.at("signature")));
    if (!is_signed) nonsense("its signature does not fit it");
  }
  const FreshApproval* approval = access.approval.sequence == entry.sequence - 1 ? &access.approval : nullptr;
  const bool fits = approval == nullptr || (approval->action == fields.at("action") && approval->requester == key_id &&
                                            approval->subject == fields.at("subject"));
  if (!fits) {
    nonsense("the approval before it is about something else");
  }
  Cover cover = cover_of(record, approval);
  AccessRequest request = request_in(record, cover);
  request.proof = is_session ? "oidc" : "key";
  request.approvals = cover.approvals;
  const AccessDecision decision = decide(access, request, entry.time);
  if (!decision.allowed) nonsense("it allows what its actor may not do: " + decision.reason);
  if (decision.rule != cover.rule || decision.policy != cover.policy) nonsense("another rule decides it than the one that it names");
  if (approval != nullptr && cover.left == 0) nonsense("it rests on an approval of nothing");
  cover_ = std::move(cover);
}

}  // namespace hushgrad::ledger
