#include "accounting/ledger/ledger.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <exception>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <utility>

#include "accounting/accountants/accountant.h"
#include "accounting/ledger/authority.h"
#include "accounting/ledger/block.h"
#include "accounting/ledger/names.h"
#include "accounting/ledger/period.h"
#include "accounting/ledger/session.h"
#include "dpcore/error.h"

namespace hushgrad {
namespace {

using namespace ledger;

// What a refused charge has to be explained with, as it was at the moment of the refusal.
struct Refusal {
  std::string dataset;
  Budget budget;
  Event history;
};

// As somebody would type it: 1e-05, not 1.0000000000000001e-05.
std::string shortest(double value) {
  char text[32];
  return {text, std::to_chars(text, text + sizeof text, value).ptr};
}

// An upper bound is shown rounded up.
std::string shown(double epsilon) {
  if (std::isinf(epsilon)) return "infinity";
  char text[64];
  std::snprintf(text, sizeof text, "%.4f", std::ceil(epsilon * 1e4) / 1e4);
  return text;
}

std::string refusal_text(const Refusal& refusal, const Event& event) {
  const double delta = refusal.budget.delta;
  const double before = epsilon(refusal.history, delta).upper;
  const double after = epsilon(Event::composed({refusal.history, event}), delta).upper;
  return message("[ledger] Expected the charge to stay within the budget of dataset '", refusal.dataset, "' (epsilon ",
                 shortest(refusal.budget.epsilon), " at delta ", shortest(delta), "), received a step that would take what is spent from ",
                 shown(before), " to ", shown(after),
                 ". Nothing was charged and nothing may be released. Stop here, or have the owner of the data raise the "
                 "budget (hushgrad ledger set-budget).");
}

[[noreturn]] void unknown_run() {
  throw InvalidArgument("[ledger] Expected the id of a run in this ledger, received another text. Use what begin_run "
                        "returned, or list the runs.");
}

Run& known_run(State& state, const std::string& run_id) {
  Run* run = state.find_run(run_id);
  if (run == nullptr) unknown_run();
  return *run;
}

Run& open_run(State& state, const std::string& run_id) {
  Run& run = known_run(state, run_id);
  if (!run.record.finished) return run;
  throw InvalidState(message("[ledger] Expected a run that is open, received one that is ", run.record.status,
                             ". Begin a new run."));
}

// How many more of the event certainly fit; 0 only when the accountant says so.
std::int64_t fitting(Account& account, const Event& event, const std::string& key, std::int64_t day) {
  if (!account.budget) return INT64_MAX;
  if (account.lets_go_at(day)) {
    // A clock that is ahead ends a period only with an entry that says so; this question is none.
    Account later = account;
    later.advance(day);
    return fitting(later, event, key, day);
  }
  if (!account.gate.allows(key)) account.gate.refill(account.tally.composed(), event, key, *account.budget);
  return account.gate.allowance(key);
}

// The account that leaves least, and how much that is.
std::pair<Account*, std::int64_t> tightest(State& state, Run& run, const Event& event, const std::string& key,
                                           std::int64_t day) {
  std::pair<Account*, std::int64_t> found{nullptr, INT64_MAX};
  for (Account* account : state.accounts_of(run)) {
    const std::int64_t fits = fitting(*account, event, key, day);
    if (fits < found.second) found = {account, fits};
    if (fits == 0) break;
  }
  return found;
}

std::string owner_of(const State& state, const Account* account) {
  for (const Dataset& dataset : state.datasets) {
    for (const Account& candidate : dataset.accounts) {
      if (&candidate == account) return dataset.name;
    }
  }
  return {};
}

// Why no run with this purpose may use the dataset now; empty when one may.
std::string forbidden(State& state, const std::string& dataset, const std::string& purpose, std::int64_t now) {
  const Dataset* known = state.find_dataset(dataset);
  if (known == nullptr || !known->info) return {};
  const DatasetInfo& info = *known->info;
  if (info.retention > 0 && now >= info.retention) return "the retention time of the dataset has passed";
  const bool listed = std::find(info.purposes.begin(), info.purposes.end(), purpose) != info.purposes.end();
  return info.purposes.empty() || listed ? std::string() : "the dataset is not for this purpose";
}

bool counts_for(const State& state, const Run& run, const std::string& dataset) {
  if (run.record.info.dataset == dataset) return true;
  const auto above = state.ancestry(run.dataset);
  return std::any_of(above.begin(), above.end(), [&](std::size_t at) { return state.datasets[at].name == dataset; });
}

Need need_of(const RunInfo& info) { return {Action::train, info.dataset, info.purpose, info.actor}; }

[[noreturn]] void deny(const std::string& reason) {
  throw InvalidState(message("[ledger] Expected a use that the description of the dataset allows, received another: ",
                             reason, ". Nothing was charged. Ask the owner of the data (hushgrad ledger describe)."));
}

constexpr const char* kMixed = "the charges of the dataset compare other neighbours";

[[noreturn]] void mixed(const std::string& reason) {
  throw InvalidState(message("[ledger] Expected a dataset whose charges all compare the same neighbours, received another comparison: ", reason,
                             ". Epsilons of different comparisons cannot be added up. Nothing was charged. Give these runs a dataset name of "
                             "their own, or train the same unit throughout."));
}

// The last steps of a budget go out one by one, so that what one process reserves is not missing in another.
std::int64_t within(std::int64_t fits, std::int64_t wanted) { return std::min(wanted, fits / 2 + fits % 2); }

std::int64_t described(const Run& run, const Event& event, const std::string& key, Batch& batch) {
  const auto known = run.event_entries.find(key);
  if (known != run.event_entries.end()) return known->second;
  return batch.append(kEvent, EventPayload{run.record.run_id, event});
}

Refusal refuse(const State& state, const Run& run, const Account& account, const Event& event, Batch& batch) {
  batch.append(kRefusal, RefusalPayload{run.record.run_id, account.budget->sequence, event});
  const bool is_of_run = run.cap && &*run.cap == &account;
  Account now = account;
  now.advance(day_of(batch.now()));
  return {is_of_run ? run.record.info.dataset : owner_of(state, &account), *account.budget, now.tally.composed()};
}

// Anything but 96 hex digits gives a hash that fits no entry.
Hash from_hex(const std::string& text) {
  Hash hash{};
  if (text.size() != 2 * hash.size()) return hash;
  for (std::size_t i = 0; i < hash.size(); ++i) {
    unsigned int byte = 0;
    std::from_chars(text.data() + 2 * i, text.data() + 2 * i + 2, byte, 16);
    hash[i] = static_cast<unsigned char>(byte);
  }
  return hash;
}

// A noise multiplier in the event below what the policy lets the run charge; the plan was checked when it began.
bool is_too_quiet(const nlohmann::json& event, double least) {
  if (event.is_array()) {
    return std::any_of(event.begin(), event.end(), [&](const auto& part) { return is_too_quiet(part, least); });
  }
  if (!event.is_object()) return false;
  const auto found = event.find("noise_multiplier");
  if (found != event.end() && found->is_number() && found->get<double>() < least) return true;
  return std::any_of(event.begin(), event.end(), [&](const auto& part) { return is_too_quiet(part, least); });
}

double seconds_since(Holder::Clock::time_point start) {
  return std::chrono::duration<double>(Holder::Clock::now() - start).count();
}

}  // namespace

Ledger::Ledger(std::unique_ptr<Session> session) : session_(std::move(session)), holder_(std::make_unique<Holder>()), authority_(std::make_unique<Authority>()) {}

Ledger::~Ledger() {
  if (!session_->is_own_process()) {
    static_cast<void>(session_.release());
    static_cast<void>(holder_.release());  // its mutex may be locked by a thread that is not here
    static_cast<void>(authority_.release());
    return;
  }
  try {
    settle();
  } catch (const std::exception&) {
    // What cannot be stated durably stays spent.
  }
}

std::shared_ptr<Ledger> Ledger::open(const std::string& path, bool create) {
  return std::shared_ptr<Ledger>(new Ledger(std::make_unique<Session>(path, create)));
}

bool Ledger::durable() const { return session_->durable(); }

const std::string& Ledger::path() const { return session_->path(); }

std::string Ledger::id() const {
  return session_->read([](State& state, Store&) { return state.ledger_id; });
}

void Ledger::set_budget(const std::string& dataset, double epsilon, double delta) {
  set_budget({dataset, epsilon, delta});
}

void Ledger::set_budget(const BudgetLimit& limit) {
  check(limit);
  act([&](State&, Batch&, const std::string& actor) {
    BudgetLimit whole = limit;
    if (whole.set_by.empty()) whole.set_by = actor;
    return std::vector<Item>{{std::string(kBudget), encode(whole)}};
  });
}

std::optional<Budget> Ledger::budget(const std::string& dataset) const {
  return session_->read([&](State& state, Store&) {
    Dataset* found = state.find_dataset(dataset);
    return found == nullptr ? std::nullopt : found->whole().budget;
  });
}

std::vector<Budget> Ledger::budgets(const std::string& dataset) const {
  return session_->read([&](State& state, Store&) {
    std::vector<Budget> budgets;
    const Dataset* found = state.find_dataset(dataset);
    if (found == nullptr) return budgets;
    for (const Account& account : found->accounts) {
      if (account.budget) budgets.push_back(*account.budget);
    }
    return budgets;
  });
}

void Ledger::describe_dataset(const DatasetInfo& info) {
  check(info);
  act([&](State& state, Batch&, const std::string& actor) {
    if (const std::string conflict = state.other_neighbours(info); !conflict.empty()) mixed(conflict);
    if (const std::string fault = state.family_fault(info); !fault.empty()) {
      throw InvalidArgument(message("[ledger] Expected parents that fit what is on record, received others: ", fault,
                                    ". Describe the parents first, and keep those that are on record."));
    }
    DatasetInfo whole = info;
    if (whole.actor.empty()) whole.actor = actor;
    return std::vector<Item>{{std::string(kDataset), encode(whole)}};
  });
}

std::optional<DatasetInfo> Ledger::dataset_info(const std::string& dataset) const {
  return session_->read([&](State& state, Store&) {
    const Dataset* found = state.find_dataset(dataset);
    return found == nullptr ? std::nullopt : found->info;
  });
}

std::int64_t Ledger::record(const LedgerRecord& record) {
  check(record);
  static const std::vector<std::string> papers = {"release", "approval", "policy", "audit", "checkpoint"};
  if (std::find(papers.begin(), papers.end(), record.kind) == papers.end() || needed_schema(record) > 2) {
    throw InvalidArgument("[ledger] Expected the method of its own for such a record, received record().");
  }
  return put(record);
}

std::vector<LedgerRecord> Ledger::records(const std::string& kind) const {
  return session_->read([&](State&, Store& store) {
    std::vector<LedgerRecord> found;
    store.read(0, INT64_MAX, [&](const Entry& entry, const std::string&) {
      if (!is_record(entry.kind) || (!kind.empty() && kind != entry.kind)) return true;
      found.push_back(decode_record(entry.kind, entry.payload));
      found.back().sequence = entry.sequence;
      found.back().time = entry.time;
      return true;
    });
    return found;
  });
}

std::string Ledger::begin_run(const RunInfo& info) {
  check_name("dataset", info.dataset, false);
  check_name("purpose", info.purpose, true);
  check_name("actor", info.actor, true);
  check_name("team", info.team, true);
  RunPayload payload{random_id(), info};
  payload.info.plan_json = canonical_plan(info.plan_json);
  std::string forbids, conflict;
  std::optional<Denied> denied;
  session_->write([&](State& state, Batch& batch) {
    if (payload.info.actor.empty()) payload.info.actor = authority_->actor(state, batch.now());
    forbids = forbidden(state, info.dataset, info.purpose, batch.now());
    if (!forbids.empty()) {
      authority_->deny(state, batch, need_of(payload.info), "dataset", forbids);
      return;
    }
    conflict = state.other_neighbours(info.dataset, neighbours_of(payload.info.plan_json));
    if (!conflict.empty()) {
      authority_->deny(state, batch, need_of(payload.info), "dataset", kMixed);
      return;
    }
    const Actor* actor = state.access.actor(payload.info.actor);
    if (actor != nullptr) payload.info.team = actor->team;
    denied = authority_->act(state, batch, {{std::string(kRun), encode(payload)}});
  });
  if (!forbids.empty()) deny(forbids);
  if (!conflict.empty()) mixed(conflict);
  if (denied) throw *denied;
  return payload.run_id;
}

// Appends what `spend(run, fits, batch)` makes of the charge, unless a rule or a budget forbids it: then what records that.
template <typename Spend>
void Ledger::charge_under_budgets(const std::string& run_id, const Event& event, const std::string& key, Spend&& spend) {
  std::optional<Refusal> refusal;
  std::string denied, conflict;
  std::optional<Denied> withheld;
  const auto decide = [&](State& state, Batch& batch) {
    Run& run = open_run(state, run_id);
    const Need need = need_of(run.record.info);
    denied = forbidden(state, need.subject, need.purpose, batch.now());
    if (!denied.empty()) {
      authority_->deny(state, batch, need, "dataset", denied);
      return;
    }
    conflict = state.other_neighbours(need.subject, run.neighbours);
    if (!conflict.empty()) {
      authority_->deny(state, batch, need, "dataset", kMixed);
      return;
    }
    withheld = authority_->spend(state, batch, run);
    const auto least = authority_->least_noise(run_id);
    if (!withheld && least && is_too_quiet(nlohmann::json::parse(key), *least)) {
      const std::string why = message("the policy asks for a noise multiplier of at least ", shortest(*least));
      authority_->deny(state, batch, need, "policy", why);
      withheld = Denied("policy", "[ledger] Expected an event that the policy allows, received another: " + why + ". Nothing was charged.");
    }
    if (withheld) return;
    const auto [account, fits] = tightest(state, run, event, key, day_of(batch.now()));
    if (fits == 0) {
      refusal = refuse(state, run, *account, event, batch);
      if (state.access.on()) authority_->deny(state, batch, need, message("budget:", account->budget->sequence), "the step would pass a budget");
      return;
    }
    spend(run, fits, batch);
  };
  try {
    session_->write(decide);
  } catch (...) {
    authority_->forget(run_id);  // what was decided is not on record
    throw;
  }
  if (!denied.empty()) deny(denied);
  if (!conflict.empty()) mixed(conflict);
  if (withheld) throw *withheld;
  if (refusal) throw BudgetExceeded(refusal_text(*refusal, event));
}

void Ledger::charge(const std::string& run_id, const Event& event) {
  const std::string key = event.to_json();
  charge_under_budgets(run_id, event, key, [&](const Run& run, std::int64_t, Batch& batch) {
    const std::int64_t which = described(run, event, key, batch);
    batch.append(kCharge, ChargePayload{which});
  });
}

void Ledger::charge_step(const std::string& run_id, const Event& event) {
  const Holder::Key key{run_id, event.to_json()};
  session_->check();
  const std::lock_guard lock(holder_->mutex);
  if (holder_->draw(key)) return;
  const std::int64_t wanted = holder_->wanted(key);
  const auto start = Holder::Clock::now();
  Block block;
  charge_under_budgets(run_id, event, key.second, [&](const Run& run, std::int64_t fits, Batch& batch) {
    block.count = within(fits, wanted);
    const std::int64_t which = described(run, event, key.second, batch);
    block.sequence = batch.append(kReserve, ReservePayload{which, block.count, holder_->id});
  });
  block.left = block.count - 1;
  block.since = Holder::Clock::now();
  block.commit_seconds = seconds_since(start);
  holder_->blocks[key] = block;
}

void Ledger::limit_block(std::int64_t steps) {
  if (steps < 1 || steps > kMaxBlock) {
    throw InvalidArgument(message("[ledger] Expected a block of 1 to ", kMaxBlock, " steps, received ", steps, "."));
  }
  const std::lock_guard lock(holder_->mutex);
  holder_->limit = steps;
}

void Ledger::settle() {
  session_->check();
  settle_blocks(nullptr, {});
}

void Ledger::settle_blocks(const std::string* run_id, const std::string& finish_as) {
  const std::lock_guard lock(holder_->mutex);
  std::vector<std::pair<Holder::Key, Block>> given_up;
  for (const auto& held : holder_->blocks) {
    if (run_id == nullptr || held.first.first == *run_id) given_up.push_back(held);
  }
  // Before the write: whatever becomes of it, no step is taken out of these blocks any more.
  for (const auto& [key, block] : given_up) holder_->blocks.erase(key);
  if (given_up.empty() && finish_as.empty()) return;
  std::optional<Denied> denied;
  const auto state_them = [&](State& state, Batch& batch) {
    if (!finish_as.empty()) {
      const RunRecord& record = known_run(state, *run_id).record;
      if (record.finished && record.status != finish_as) open_run(state, *run_id);
    }
    std::map<std::string, std::vector<Item>> items;  // by run: each has an actor of its own
    for (const auto& [key, block] : given_up) {
      const auto known = state.reservations.find(block.sequence);
      const bool is_open = known != state.reservations.end() && known->second.open;
      if (!is_open || known_run(state, key.first).record.finished) continue;
      items[key.first].push_back({std::string(kSettle), encode(SettlePayload{block.sequence, block.count - block.left})});
    }
    if (!finish_as.empty() && !known_run(state, *run_id).record.finished) {
      items[*run_id].push_back({std::string(kFinish), encode(FinishPayload{*run_id, finish_as})});
    }
    for (const auto& [run, of_run] : items) {
      if (auto refused = authority_->act(state, batch, of_run)) denied = std::move(refused);
    }
  };
  try {
    session_->write(state_them);
    if (denied) throw *denied;
  } catch (...) {
    // Nothing was stated about these blocks: what this handle reserves from now on must not say that they were used up.
    holder_->id = random_id();
    throw;
  }
}

void Ledger::finish_run(const std::string& run_id, const std::string& status) {
  if (status != "completed" && status != "failed") {
    throw InvalidArgument("[ledger] Expected status completed or failed, received another text. Say how the run ended.");
  }
  session_->check();
  settle_blocks(&run_id, status);
}

Interval Ledger::spent(const std::string& dataset, double delta) const {
  return epsilon(dataset_history(dataset), delta);
}

Interval Ledger::run_spent(const std::string& run_id, double delta) const {
  return epsilon(run_history(run_id), delta);
}

Event Ledger::dataset_history(const std::string& dataset) const {
  return session_->read([&](State& state, Store&) {
    Dataset* found = state.find_dataset(dataset);
    return found == nullptr ? Event::composed({}) : found->whole().tally.composed();
  });
}

Event Ledger::run_history(const std::string& run_id) const {
  session_->check();
  const std::lock_guard lock(holder_->mutex);
  return session_->read([&](State& state, Store&) {
    Tally tally = known_run(state, run_id).tally;
    for (const auto& [key, block] : holder_->blocks) {
      if (key.first == run_id) tally.take_away(key.second, block.left);
    }
    return tally.composed();
  });
}

std::vector<std::string> Ledger::datasets() const {
  return session_->read([](State& state, Store&) {
    std::vector<std::string> names;
    for (const Dataset& dataset : state.datasets) {
      if (dataset.is_known) names.push_back(dataset.name);
    }
    return names;
  });
}

std::vector<RunRecord> Ledger::runs(const std::optional<std::string>& dataset) const {
  return session_->read([&](State& state, Store&) {
    std::vector<RunRecord> records;
    for (const Run& run : state.runs) {
      if (!dataset || *dataset == run.record.info.dataset) records.push_back(run.record);
    }
    return records;
  });
}

RunRecord Ledger::run(const std::string& run_id) const {
  return session_->read([&](State& state, Store&) { return known_run(state, run_id).record; });
}

std::vector<StepRecord> Ledger::steps(const std::optional<std::string>& dataset,
                                      const std::optional<std::string>& run_id) const {
  return session_->read([&](State& state, Store& store) {
    if (run_id) known_run(state, *run_id);
    std::vector<StepRecord> records;
    store.read(0, INT64_MAX, [&](const Entry& entry, const std::string&) {
      if (entry.kind != kCharge && entry.kind != kReserve) return true;
      const auto reserved = state.reservations.find(entry.sequence);
      const bool is_block = reserved != state.reservations.end();
      const auto& place = state.event_entries.at(is_block ? reserved->second.event_sequence
                                                          : decode_charge(entry.payload).event_sequence);
      const Run& run = state.runs[place.run];
      if (run_id && *run_id != run.record.run_id) return true;
      if (dataset && !counts_for(state, run, *dataset)) return true;
      records.insert(records.end(), static_cast<std::size_t>(is_block ? reserved->second.count : 1),
                     {entry.sequence, run.record.run_id, run.record.info.dataset, run.tally.use(place.run_use).event, 1,
                      entry.time});
      return true;
    });
    return records;
  });
}

LedgerHead Ledger::head() const {
  return session_->read([](State& state, Store&) { return LedgerHead{state.sequence, to_hex(state.hash)}; });
}

bool Ledger::contains(const LedgerHead& head) const {
  return session_->read([&](State&, Store& store) {
    const auto hash = store.hash_at(head.sequence);
    return hash && to_hex(*hash) == head.hash;
  });
}

bool Ledger::expect(const LedgerHead& head) { return session_->expect(head); }

std::vector<LedgerHead> Ledger::missing() const { return session_->missing(); }

void Ledger::repair(const std::string& first, const std::string& second, const std::string& reason) {
  const std::vector<LedgerHead> lost = missing();
  if (lost.empty()) throw InvalidState("[ledger] Expected a ledger that misses an entry, received one that misses none.");
  act(
      [&](State&, Batch&, const std::string& actor) {
        std::vector<Item> items;
        for (const LedgerHead& head : lost) {
          const LedgerRecord repair{"repair",
                                    {{"first", first.empty() ? actor : first}, {"second", second}, {"reason", reason},
                                     {"hash", head.hash}, {"sequence", std::to_string(head.sequence)}}};
          check(repair);
          items.push_back({repair.kind, encode(repair)});
        }
        return items;
      },
      true);
}

std::shared_ptr<Ledger> Ledger::import(const std::string& path, const std::vector<LedgerEntry>& rows) {
  State state;
  std::vector<Entry> entries;
  for (const LedgerEntry& row : rows) {
    entries.push_back({row.sequence, row.time, row.kind, row.payload, from_hex(row.previous), from_hex(row.hash)});
    if (const std::string fault = state.apply(entries.back()); !fault.empty()) {
      throw LedgerError(message("[ledger] Expected entries that form a ledger, received a bad one: entry ", state.sequence + 1, ": ",
                                fault, ". Nothing was written. Export again."));
    }
  }
  if (entries.empty()) throw LedgerError("[ledger] Expected the entries of a ledger, received none.");
  auto session = std::make_unique<Session>(path, true, &entries.front());
  session->append_as_they_are(entries);
  return std::shared_ptr<Ledger>(new Ledger(std::move(session)));
}

std::shared_ptr<Ledger> Ledger::move_to(const std::string& path, const std::string& actor) {
  settle();
  const bool is_under_way = session_->read([](State& state, Store&) { return state.moved; });
  // An address may hold a password.
  const std::string place = path.find("://") == path.npos ? path : "a PostgreSQL database";
  if (!is_under_way) put({"moved", {{"actor", actor}, {"to", place}}});
  const LedgerHead last = head();
  auto other = import(path, entries());
  if (other->session_->path() == session_->path()) {
    throw LedgerError("[ledger] Expected another place to move to, received the same. Give another path.");
  }
  if (const VerifyResult verdict = other->verify(); !verdict.ok || !other->contains(last)) {
    throw LedgerError(message("[ledger] Expected the copy to verify, received a bad one: ", verdict.reason, ". Try again."));
  }
  other->session_->write(
      [&](State& state, Batch& batch) {
        if (state.moved) batch.append("arrived", LedgerRecord{"arrived", {{"actor", actor}, {"at", other->path()}}});
      },
      true);
  return other;
}

std::vector<LedgerEntry> Ledger::entries(std::int64_t first, std::int64_t limit) const {
  if (limit < 0) {
    throw InvalidArgument(message("[ledger] Expected limit >= 0, received ", limit, ". Ask for fewer or all entries."));
  }
  return session_->inspect([&](Store& store) {
    std::vector<LedgerEntry> rows;
    store.read(std::max<std::int64_t>(first, 1) - 1, limit, [&](const Entry& entry, const std::string&) {
      rows.push_back({entry.sequence, entry.time, entry.kind, entry.payload, to_hex(entry.previous), to_hex(entry.hash)});
      return true;
    });
    return rows;
  });
}

VerifyResult Ledger::verify() const { return session_->verify(); }

}  // namespace hushgrad
