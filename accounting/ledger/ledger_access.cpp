// The methods of a ledger about who may do what.
#include <algorithm>
#include <utility>

#include "accounting/access/digest.h"
#include "accounting/accountants/accountant.h"
#include "accounting/ledger/authority.h"
#include "accounting/ledger/ledger.h"
#include "accounting/ledger/names.h"
#include "accounting/ledger/payload.h"
#include "accounting/ledger/period.h"
#include "accounting/ledger/session.h"
#include "dpcore/error.h"

namespace hushgrad {
namespace {

using namespace ledger;

constexpr std::int64_t kSecond = 1'000'000;
constexpr std::int64_t kDay = 86'400 * kSecond;

Item item_of(const LedgerRecord& record) { return {record.kind, encode(record)}; }

Proposal proposal_of(State& state, const Item& item) {
  const auto need = state.need_of(item.kind, item.payload);
  return {need ? need->action : Action::record, scope_of({item})};
}

}  // namespace

std::int64_t Ledger::act(const Make& make, bool even_if_closed) {
  std::optional<Denied> denied;
  std::int64_t sequence = 0;
  session_->write(
      [&](State& state, Batch& batch) {
        const std::string actor = authority_->actor(state, batch.now());
        denied = authority_->act(state, batch, make(state, batch, actor));
        sequence = batch.sequence();
      },
      even_if_closed);
  if (denied) throw *denied;
  return sequence;
}

std::int64_t Ledger::put(LedgerRecord record) {
  return act([&](State&, Batch&, const std::string& actor) {
    const auto named = record.fields.find("actor");
    if (named != record.fields.end() && named->second.empty()) named->second = actor;
    check(record);
    return std::vector<Item>{item_of(record)};
  });
}

void Ledger::identify(std::shared_ptr<const SigningKey> key) { authority_->identify(std::move(key)); }

std::string Ledger::actor() const {
  return session_->read([&](State& state, Store&) { return authority_->actor(state, Batch(state).now()); });
}

bool Ledger::has_access_rules() const {
  return session_->read([](State& state, Store&) { return state.access.on(); });
}

AccessState Ledger::access() const {
  return session_->read([](State& state, Store&) { return state.access; });
}

void Ledger::found_access(const std::string& name) {
  const auto key = authority_->key();
  if (key == nullptr) {
    throw InvalidArgument("[access] Expected a handle with the key of the first officer, received one without. Call identify first.");
  }
  session_->write([&](State& state, Batch& batch) {
    if (state.access.on()) throw InvalidState("[access] Expected a ledger without actors, received one with some. An officer adds further ones.");
    const LedgerRecord actor{"actor", {{"actor", name}, {"key", key_line(key->public_key())}, {"name", name}, {"subject", ""}, {"team", ""}}};
    const LedgerRecord grant{"grant",
                             {{"actor", name}, {"dataset", "*"}, {"expires", ""}, {"name", name}, {"purpose", "*"},
                              {"reason", "first officer"}, {"role", "privacy_officer"}, {"starts", ""}}};
    check(actor);
    check(grant);
    AccessState trial;
    trial.apply(actor, batch.sequence() + 1, batch.now());
    batch.append(actor.kind, actor);
    batch.append(grant.kind, grant);
  });
}

std::int64_t Ledger::add_actor(const ActorInfo& info) {
  if (!has_access_rules()) throw InvalidState("[access] Expected a ledger with a first officer, received one without. Begin with hushgrad access init.");
  return put({"actor", {{"actor", ""}, {"key", key_line(info.key)}, {"name", info.name}, {"subject", info.subject}, {"team", info.team}}});
}

std::int64_t Ledger::grant(const GrantInfo& info) {
  return put({"grant",
              {{"actor", ""}, {"dataset", info.dataset}, {"expires", info.expires}, {"name", info.name}, {"purpose", info.purpose},
               {"reason", info.reason}, {"role", to_string(info.role)}, {"starts", info.starts}}});
}

std::int64_t Ledger::revoke(const std::string& target, const std::string& reason) {
  return put({"revoke", {{"actor", ""}, {"reason", reason}, {"target", target}}});
}

std::int64_t Ledger::publish_policy(const std::string& policy_json, const std::string& key, const std::string& signature) {
  const std::string canonical = canonical_plan(policy_json);
  const std::string version = std::to_string(parse_policy(canonical).version);
  return put({"policy",
              {{"actor", ""}, {"digest", hex_digest(canonical)}, {"key", key}, {"policy", canonical}, {"signature", signature},
               {"version", version}}});
}

AccessDecision Ledger::test_access(const AccessRequest& request) const {
  return session_->read([&](State& state, Store&) { return decide(state.access, request, Batch(state).now()); });
}

AccessDecision Ledger::test_access(const AccessRequest& request, const Policy& policy) const {
  return session_->read([&](State& state, Store&) {
    AccessState trial = state.access;
    trial.policies.push_back({0, policy});
    return decide(trial, request, Batch(state).now());
  });
}

void Ledger::present(const Operation& operation, const std::vector<Approval>& approvals) { authority_->present(operation, approvals); }

Proposal Ledger::proposal(const BudgetLimit& limit) const {
  check(limit);
  return session_->read([&](State& state, Store&) {
    BudgetLimit whole = limit;
    // The form of the entry follows from who sets it.
    if (whole.set_by.empty() && state.access.on()) whole.set_by = state.access.actors.front().name;
    return proposal_of(state, {std::string(kBudget), encode(whole)});
  });
}

Proposal Ledger::proposal(const DatasetInfo& info) const {
  check(info);
  return session_->read([&](State& state, Store&) { return proposal_of(state, {std::string(kDataset), encode(info)}); });
}

Proposal Ledger::proposal(const LedgerRecord& record) const {
  check(record);
  return session_->read([&](State& state, Store&) { return proposal_of(state, item_of(record)); });
}

std::int64_t Ledger::break_glass(const GlassInfo& info) {
  return act([&](State& state, Batch& batch, const std::string& actor) {
    const Policy defaults;
    const Policy& policy = state.access.policy() == nullptr ? defaults : *state.access.policy();
    const std::int64_t expires = batch.now() + info.seconds * kSecond;
    const LedgerRecord record{"break_glass",
                              {{"action", to_string(info.action)}, {"actor", actor}, {"dataset", info.dataset},
                               {"expires", time_text(expires)}, {"reason", info.reason},
                               {"review_due", time_text(expires + policy.review_seconds * kSecond)}}};
    check(record);
    return std::vector<Item>{item_of(record)};
  });
}

std::int64_t Ledger::review(std::int64_t glass, const std::string& verdict, const std::string& reason) {
  return put({"review", {{"actor", ""}, {"glass", std::to_string(glass)}, {"reason", reason}, {"verdict", verdict}}});
}

std::int64_t Ledger::release(const ReleaseInfo& info) {
  if (info.kind != "model" && info.kind != "metrics" && info.kind != "checkpoint") {
    throw InvalidArgument("[ledger] Expected a release of a model, metrics or a checkpoint, received another kind. Name one of them.");
  }
  return act([&](State& state, Batch&, const std::string& actor) {
    const Run* run = info.run.empty() ? nullptr : state.find_run(info.run);
    if (!info.run.empty() && run == nullptr) throw InvalidArgument("[ledger] Expected the id of a run in this ledger, received another text.");
    const std::string of_run = run == nullptr ? "" : run->record.info.dataset;
    if (run != nullptr && !info.dataset.empty() && info.dataset != of_run) {
      throw InvalidArgument("[ledger] Expected the dataset of the run, received another. Leave it out.");
    }
    const LedgerRecord record{"release",
                              {{"actor", actor}, {"artifact", info.artifact}, {"dataset", info.dataset.empty() ? of_run : info.dataset},
                               {"digest", info.digest}, {"kind", info.kind}, {"recipient", info.recipient}, {"run", info.run}}};
    check(record);
    return std::vector<Item>{item_of(record)};
  });
}

std::int64_t Ledger::add_provider(const ProviderInfo& info) {
  return put({"provider",
              {{"actor", ""}, {"algorithms", info.algorithms}, {"audience", info.audience}, {"issuer", info.issuer},
               {"jwks", canonical_plan(info.jwks)}, {"mfa", info.mfa}}});
}

std::int64_t Ledger::open_session(const SessionInfo& info) {
  return act([&](State& state, Batch&, const std::string&) {
    std::string name;
    for (const Actor& actor : state.access.actors) {
      if (!actor.subject.empty() && actor.subject == info.issuer + "#" + info.subject) name = actor.name;
    }
    const LedgerRecord record{"session",
                              {{"actor", name}, {"audience", info.audience}, {"expires", info.expires}, {"issuer", info.issuer},
                               {"key", key_line(info.key)}, {"subject", info.subject}, {"token", info.token}}};
    check(record);
    return std::vector<Item>{item_of(record)};
  });
}

void Ledger::refuse_sign_in(const std::string& issuer, const std::string& reason) {
  check_name("issuer", issuer, true);
  session_->write([&](State& state, Batch& batch) { authority_->refuse_sign_in(state, batch, issuer, "", reason); });
}

void Ledger::authorise_export() {
  if (!has_access_rules()) return;
  std::optional<Denied> denied;
  session_->write([&](State& state, Batch& batch) {
    denied = authority_->permit(state, batch, {Action::export_ledger, {}, {}, authority_->actor(state, batch.now())});
  });
  if (denied) throw *denied;
}

std::vector<BudgetStatus> Ledger::budget_status(const std::string& dataset) const {
  std::vector<BudgetStatus> rows;
  std::vector<Event> histories;
  session_->read([&](State& state, Store&) {
    Dataset* found = state.find_dataset(dataset);
    if (found == nullptr) return;
    const std::int64_t day = day_of(Batch(state).now());
    for (Account account : found->accounts) {  // copies: a clock that is ahead, for the time of a question, ends no period
      if (!account.budget) continue;
      account.advance(day);
      BudgetStatus row{dataset, *account.budget, {}, false, account.period.empty() ? 0 : first_day(account.period, day) * kDay};
      rows.push_back(std::move(row));
      histories.push_back(account.tally.composed());
    }
  });
  for (std::size_t i = 0; i < rows.size(); ++i) {
    rows[i].spent = epsilon(histories[i], rows[i].budget.delta);
    rows[i].warns = rows[i].budget.warning > 0 && rows[i].spent.upper >= rows[i].budget.warning;
  }
  return rows;
}

}  // namespace hushgrad
