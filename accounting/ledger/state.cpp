#include "accounting/ledger/state.h"

#include <algorithm>
#include <utility>

#include "accounting/ledger/payload.h"
#include "accounting/ledger/period.h"
#include "accounting/ledger/schema.h"
#include "dpcore/error.h"

namespace hushgrad::ledger {
namespace {

// Thrown and caught inside apply(): an entry that is well formed but makes no sense after the ones before it.
[[noreturn]] void nonsense(const std::string& why) { throw InvalidArgument(why); }

}  // namespace

Dataset* State::find_dataset(const std::string& name) {
  const auto found = dataset_positions_.find(name);
  return found == dataset_positions_.end() ? nullptr : &datasets[found->second];
}

Run* State::find_run(const std::string& run_id) {
  const auto found = run_positions_.find(run_id);
  return found == run_positions_.end() ? nullptr : &runs[found->second];
}

std::size_t State::dataset_position(const std::string& name) {
  const auto [found, is_new] = dataset_positions_.emplace(name, datasets.size());
  if (is_new) {
    datasets.push_back({});
    datasets.back().name = name;
    datasets.back().accounts.emplace_back();
  }
  return found->second;
}

std::size_t State::known_run(const std::string& run_id) const {
  const auto found = run_positions_.find(run_id);
  if (found == run_positions_.end()) nonsense("its run is unknown");
  return found->second;
}

std::string State::apply(const Entry& entry) {
  static const std::unordered_map<std::string_view, void (State::*)(const Entry&)> kinds = {
      {kGenesis, &State::apply_genesis}, {kBudget, &State::apply_budget}, {kRun, &State::apply_run},
      {kEvent, &State::apply_event},     {kCharge, &State::apply_charge}, {kRefusal, &State::apply_refusal},
      {kFinish, &State::apply_finish},   {kReserve, &State::apply_reserve}, {kSettle, &State::apply_settle},
      {kMigration, &State::apply_migration}, {kDataset, &State::apply_dataset},
  };
  if (std::string fault = link_fault(entry); !fault.empty()) return fault;
  const auto kind = kinds.find(entry.kind);
  const auto method = kind != kinds.end() ? kind->second : is_record(entry.kind) ? &State::apply_record : nullptr;
  if (method == nullptr) return "its kind is unknown";
  if ((entry.kind == kGenesis) != (entry.sequence == 1)) return "the first entry, and no other, must be the genesis";
  try {
    check_cover(entry);
    (this->*method)(entry);
  } catch (const Error& error) {
    return message("it makes no sense: ", error.what());
  }
  sequence = entry.sequence;
  time = entry.time;
  hash = entry.hash;
  return {};
}

std::string State::link_fault(const Entry& entry) const {
  if (entry.sequence != sequence + 1) return message("it is missing; the next one found is ", entry.sequence);
  if (entry.previous != hash) return "it does not continue the entry before it";
  if (entry_hash(entry) != entry.hash) return "its content does not match its hash";
  if (entry.time < time) return "its time lies before that of the entry before it";
  if (entry.time > kLatestTime) return "its time lies after the year 9999";
  return {};
}

void State::apply_genesis(const Entry& entry) {
  GenesisPayload payload = decode_genesis(entry.payload);
  if (payload.schema < 1 || payload.schema > kSchemaVersion) nonsense("its schema version is unknown");
  ledger_id = std::move(payload.ledger_id);
  schema = payload.schema;
}

void State::apply_budget(const Entry& entry) {
  BudgetLimit limit = decode_budget(entry.payload);
  if (schema < 3 && !(limit.team.empty() && limit.period.empty())) nonsense("its form is newer than the ledger");
  Dataset& owner = datasets[dataset_position(limit.dataset)];
  owner.is_known = true;
  auto account = std::find_if(owner.accounts.begin(), owner.accounts.end(),
                              [&](const Account& candidate) { return candidate.is_of(limit); });
  const bool is_new = account == owner.accounts.end();
  if (is_new) {
    account = owner.accounts.emplace(owner.accounts.end());
    account->purpose = limit.purpose;
    account->actor = limit.actor;
    account->team = limit.team;
    account->period = limit.period;
  }
  account->budget = Budget{limit.epsilon, limit.delta, entry.sequence, entry.time, limit.warning,
                           limit.purpose, limit.actor, limit.team, limit.period};
  account->gate.reset();
  if (is_new) recount();
}

std::vector<std::size_t> State::ancestry(std::size_t dataset) const {
  std::vector<std::size_t> found = {dataset};
  for (std::size_t next = 0; next < found.size(); ++next) {
    const auto& info = datasets[found[next]].info;
    if (!info) continue;
    for (const std::string& name : info->parents) {
      const std::size_t parent = dataset_positions_.at(name);
      if (std::find(found.begin(), found.end(), parent) == found.end()) found.push_back(parent);
    }
  }
  return found;
}

Account* State::account_of(const BudgetLimit& limit) {
  Dataset* owner = find_dataset(limit.dataset);
  if (owner == nullptr) return nullptr;
  const auto account = std::find_if(owner->accounts.begin(), owner->accounts.end(),
                                    [&](const Account& candidate) { return candidate.is_of(limit); });
  return account == owner->accounts.end() ? nullptr : &*account;
}

std::vector<Account*> State::accounts_of(Run& run) {
  std::vector<Account*> accounts;
  if (run.cap) accounts.push_back(&*run.cap);
  for (const std::size_t position : ancestry(run.dataset)) {
    for (Account& account : datasets[position].accounts) {
      if (account.covers(run.record.info)) accounts.push_back(&account);
    }
  }
  return accounts;
}

std::vector<EventEntry::Place> State::places_of(const Run& run, const std::string& key, const Event& event) {
  std::vector<EventEntry::Place> places;
  for (const std::size_t position : ancestry(run.dataset)) {
    auto& accounts = datasets[position].accounts;
    for (std::size_t i = 0; i < accounts.size(); ++i) {
      if (accounts[i].covers(run.record.info)) places.push_back({position, i, accounts[i].tally.position(key, event)});
    }
  }
  return places;
}

void State::recount() {
  for (Dataset& dataset : datasets) {
    dataset.charged.clear();
    for (Account& account : dataset.accounts) {
      account.clear();
    }
  }
  std::vector<std::int64_t> sequences;
  for (const auto& [number, place] : event_entries) sequences.push_back(number);
  std::sort(sequences.begin(), sequences.end());
  for (const std::int64_t number : sequences) {
    EventEntry& entry = event_entries[number];
    const Use& use = runs[entry.run].tally.use(entry.run_use);
    entry.places = places_of(runs[entry.run], use.key, use.event);
    for (const auto& [day, count] : entry.days) {
      count_neighbours(runs[entry.run], entry.places, count);
      for (const auto& place : entry.places) account_at(place).spend(place.use, count, day);
    }
  }
}

void State::count_neighbours(const Run& run, const std::vector<EventEntry::Place>& places, std::int64_t count) {
  for (const auto& place : places) {
    if (place.account == 0) datasets[place.dataset].charged[run.neighbours] += count;
  }
}

std::string State::conflict(std::size_t dataset, const Neighbours& neighbours) const {
  const Dataset& found = datasets[dataset];
  for (const auto& [charged, count] : found.charged) {
    if (count > 0 && !agree(charged, neighbours)) {
      return message("charges of '", found.name, "' are for (", text_of(charged), "), these for (", text_of(neighbours), ")");
    }
  }
  if (!found.info || agree(found.info->adjacency, neighbours.adjacency)) return {};
  return message("'", found.name, "' is described with ", found.info->adjacency, ", these are for ", neighbours.adjacency);
}

std::string State::other_neighbours(const std::string& dataset, const Neighbours& neighbours) const {
  const auto position = dataset_positions_.find(dataset);
  if (position == dataset_positions_.end()) return {};
  for (const std::size_t at : ancestry(position->second)) {
    if (std::string found = conflict(at, neighbours); !found.empty()) return found;
  }
  return {};
}

std::string State::other_neighbours(const DatasetInfo& info) const {
  const auto position = dataset_positions_.find(info.dataset);
  if (position == dataset_positions_.end()) return {};
  for (const auto& [charged, count] : datasets[position->second].charged) {
    if (count == 0) continue;
    if (!agree(info.adjacency, charged.adjacency)) {
      return message("charges of '", info.dataset, "' are for ", charged.adjacency, ", the description says ", info.adjacency);
    }
    for (const std::string& parent : info.parents) {
      if (std::string found = other_neighbours(parent, charged); !found.empty()) return found;
    }
  }
  return {};
}

std::string State::family_fault(const DatasetInfo& info) const {
  const auto position = dataset_positions_.find(info.dataset);
  for (const std::string& name : info.parents) {
    const auto parent = dataset_positions_.find(name);
    if (parent == dataset_positions_.end()) return "a parent of the dataset is unknown";
    if (position == dataset_positions_.end()) continue;
    const auto above = ancestry(parent->second);
    if (std::find(above.begin(), above.end(), position->second) != above.end()) {
      return "the dataset would be made from itself";
    }
  }
  if (position == dataset_positions_.end() || !datasets[position->second].info) return {};
  for (const std::string& parent : datasets[position->second].info->parents) {
    // Otherwise a new description would take what was spent off the parents' budgets.
    if (std::find(info.parents.begin(), info.parents.end(), parent) == info.parents.end()) return "a parent is missing";
  }
  return {};
}

void State::apply_dataset(const Entry& entry) {
  if (schema < 2) nonsense("its kind is newer than the ledger");
  DatasetInfo info = decode_dataset(entry.payload);
  if (const std::string fault = family_fault(info); !fault.empty()) nonsense(fault);
  Dataset& dataset = datasets[dataset_position(info.dataset)];
  const std::vector<std::string> before = dataset.info ? dataset.info->parents : std::vector<std::string>{};
  const bool is_same_family = before == info.parents;
  dataset.info = std::move(info);
  dataset.is_known = true;
  if (!is_same_family) recount();
}

void State::apply_record(const Entry& entry) {
  const LedgerRecord record = decode_record(entry.kind, entry.payload);
  if (schema < needed_schema(record)) nonsense("its kind is newer than the ledger");
  if (entry.kind == "audit") return apply_audit(entry, record);
  access.apply(record, entry.sequence, entry.time);
  if (entry.kind == "moved") moved = true;
  if (entry.kind == "arrived" && !std::exchange(moved, false)) nonsense("nothing was under way");
  if (entry.kind == "repair") repaired.insert(record.fields.at("hash"));
}

void State::apply_run(const Entry& entry) {
  RunPayload payload = decode_run(entry.payload);
  if (!run_positions_.emplace(payload.run_id, runs.size()).second) nonsense("the run exists already");
  Run run;
  run.dataset = dataset_position(payload.info.dataset);
  run.record.run_id = std::move(payload.run_id);
  run.record.info = std::move(payload.info);
  run.record.status = "running";
  run.record.sequence = entry.sequence;
  run.record.started = entry.time;
  run.neighbours = neighbours_of(run.record.info.plan_json);
  run.cap = cover_.cap_of(access);
  datasets[run.dataset].is_known = true;
  datasets[run.dataset].runs.push_back(runs.size());
  runs.push_back(std::move(run));
}

void State::apply_event(const Entry& entry) {
  const EventPayload payload = decode_event(entry.payload);
  const std::size_t position = known_run(payload.run_id);
  Run& run = runs[position];
  const std::string key = payload.event.to_json();
  if (!run.event_entries.emplace(key, entry.sequence).second) nonsense("the run has this event already");
  EventEntry& described = event_entries[entry.sequence];
  described.run = position;
  described.run_use = run.tally.position(key, payload.event);
  described.places = places_of(run, key, payload.event);
  if (run.cap) described.cap_use = run.cap->tally.position(key, payload.event);
}

void State::apply_charge(const Entry& entry) {
  spend(described(decode_charge(entry.payload).event_sequence), 1, day_of(entry.time));
}

EventEntry& State::described(std::int64_t event_sequence) {
  const auto found = event_entries.find(event_sequence);
  if (found == event_entries.end()) nonsense("it charges an event that no entry describes");
  return found->second;
}

void State::spend(EventEntry& place, std::int64_t count, std::int64_t day) {
  Run& run = runs[place.run];
  if (run.record.finished) nonsense("its run was finished before");
  run.tally.add(place.run_use, count);
  run.record.steps += count;
  place.days[day] += count;
  if (run.cap) run.cap->spend(place.cap_use, count, day);
  count_neighbours(run, place.places, count);
  for (const auto& where : place.places) account_at(where).spend(where.use, count, day);
}

void State::apply_reserve(const Entry& entry) {
  if (schema < 2) nonsense("its kind is newer than the ledger");
  ReservePayload payload = decode_reserve(entry.payload);
  EventEntry& place = described(payload.event_sequence);
  spend(place, payload.count, day_of(entry.time));
  Run& run = runs[place.run];
  // A holder asks for more of the same only when what it had is used up.
  for (const std::int64_t sequence : std::vector(run.open_reservations)) {
    const Reservation& before = reservations.at(sequence);
    if (before.holder == payload.holder && before.event_sequence == payload.event_sequence) close(run, sequence);
  }
  run.record.reserved += payload.count;
  run.open_reservations.push_back(entry.sequence);
  reservations[entry.sequence] = {payload.event_sequence, payload.count, std::move(payload.holder), day_of(entry.time), true};
}

void State::close(Run& run, std::int64_t reservation) {
  Reservation& closed = reservations.at(reservation);
  closed.open = false;
  run.record.reserved -= closed.count;
  std::erase(run.open_reservations, reservation);
}

// The one entry that lowers what is spent: the process that held the block states, before it ends, how many of its steps
// it took. Whoever cannot state that, because it died, leaves the whole block spent.
void State::apply_settle(const Entry& entry) {
  const SettlePayload payload = decode_settle(entry.payload);
  const auto found = reservations.find(payload.reservation);
  if (found == reservations.end() || !found->second.open) nonsense("it settles a block that is not open");
  Reservation& reservation = found->second;
  if (payload.used < 0 || payload.used > reservation.count) nonsense("it uses another number of steps than the block has");
  EventEntry& place = event_entries.at(reservation.event_sequence);
  Run& run = runs[place.run];
  if (run.record.finished) nonsense("its run was finished before");
  const std::int64_t unused = reservation.count - payload.used;
  close(run, payload.reservation);
  reservation.count = payload.used;
  run.tally.add(place.run_use, -unused);
  place.days[reservation.day] -= unused;
  if (run.cap) run.cap->give_back(place.cap_use, unused, reservation.day);
  count_neighbours(run, place.places, -unused);
  for (const auto& where : place.places) account_at(where).give_back(where.use, unused, reservation.day);
  run.record.steps -= unused;
}

void State::apply_migration(const Entry& entry) {
  const MigrationPayload payload = decode_migration(entry.payload);
  if (payload.from != schema || payload.to <= schema || payload.to > kSchemaVersion) {
    nonsense("it migrates between other versions");
  }
  schema = payload.to;
}

void State::apply_refusal(const Entry& entry) {
  const RefusalPayload payload = decode_refusal(entry.payload);
  Run& run = runs[known_run(payload.run_id)];
  const auto accounts = accounts_of(run);
  const bool in_force = std::any_of(accounts.begin(), accounts.end(), [&](const Account* account) {
    return account->budget && account->budget->sequence == payload.budget_sequence;
  });
  if (!in_force) nonsense("the budget it names was not in force");
  ++run.record.refusals;
}

void State::apply_finish(const Entry& entry) {
  FinishPayload payload = decode_finish(entry.payload);
  Run& run = runs[known_run(payload.run_id)];
  if (run.record.finished) nonsense("its run was finished before");
  run.record.status = std::move(payload.status);
  run.record.finished = entry.time;
}

}  // namespace hushgrad::ledger
