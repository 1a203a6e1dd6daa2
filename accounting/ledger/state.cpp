#include "accounting/ledger/state.h"

#include <utility>

#include "accounting/ledger/payload.h"
#include "accounting/ledger/schema.h"
#include "dpcore/error.h"

namespace hushgrad::ledger {
namespace {

// Thrown and caught inside apply(): an entry that is well formed but makes no sense after the ones before it.
[[noreturn]] void nonsense(const std::string& why) { throw InvalidArgument(why); }

}  // namespace

std::size_t Tally::position(const std::string& key, const Event& event) {
  const auto [found, is_new] = positions_.emplace(key, uses_.size());
  if (is_new) uses_.push_back({key, event, 0});
  return found->second;
}

Event Tally::composed() const {
  std::vector<Event> events;
  for (const Use& use : uses_) {
    if (use.count > 0) events.push_back(Event::self_composed(use.event, use.count));
  }
  return Event::composed(std::move(events));
}

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
  if (is_new) datasets.push_back({name, {}, {}, {}, {}});
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
      {kMigration, &State::apply_migration},
  };
  if (std::string fault = link_fault(entry); !fault.empty()) return fault;
  const auto kind = kinds.find(entry.kind);
  if (kind == kinds.end()) return "its kind is unknown";
  if ((entry.kind == kGenesis) != (entry.sequence == 1)) return "the first entry, and no other, must be the genesis";
  try {
    (this->*kind->second)(entry);
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
  return {};
}

void State::apply_genesis(const Entry& entry) {
  GenesisPayload payload = decode_genesis(entry.payload);
  if (payload.schema < 1 || payload.schema > kSchemaVersion) nonsense("its schema version is unknown");
  ledger_id = std::move(payload.ledger_id);
  schema = payload.schema;
}

void State::apply_budget(const Entry& entry) {
  const BudgetPayload payload = decode_budget(entry.payload);
  Dataset& owner = datasets[dataset_position(payload.dataset)];
  owner.budget = Budget{payload.epsilon, payload.delta, entry.sequence, entry.time};
  owner.gate.reset();
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
  datasets[run.dataset].runs.push_back(runs.size());
  runs.push_back(std::move(run));
}

void State::apply_event(const Entry& entry) {
  const EventPayload payload = decode_event(entry.payload);
  const std::size_t position = known_run(payload.run_id);
  Run& run = runs[position];
  const std::string key = payload.event.to_json();
  if (!run.event_entries.emplace(key, entry.sequence).second) nonsense("the run has this event already");
  event_entries[entry.sequence] = {position, run.tally.position(key, payload.event),
                                   datasets[run.dataset].tally.position(key, payload.event)};
}

void State::apply_charge(const Entry& entry) {
  spend(described(decode_charge(entry.payload).event_sequence), 1);
}

const EventEntry& State::described(std::int64_t event_sequence) const {
  const auto found = event_entries.find(event_sequence);
  if (found == event_entries.end()) nonsense("it charges an event that no entry describes");
  return found->second;
}

void State::spend(const EventEntry& place, std::int64_t count) {
  Run& run = runs[place.run];
  if (run.record.finished) nonsense("its run was finished before");
  Dataset& owner = datasets[run.dataset];
  run.tally.add(place.run_use, count);
  owner.tally.add(place.dataset_use, count);
  run.record.steps += count;
  const Use& use = owner.tally.use(place.dataset_use);
  owner.gate.spend(use.event, use.key, count);
}

void State::apply_reserve(const Entry& entry) {
  if (schema < 2) nonsense("its kind is newer than the ledger");
  ReservePayload payload = decode_reserve(entry.payload);
  const EventEntry& place = described(payload.event_sequence);
  spend(place, payload.count);
  Run& run = runs[place.run];
  // A holder asks for more of the same only when what it had is used up.
  for (const std::int64_t sequence : std::vector(run.open_reservations)) {
    const Reservation& before = reservations.at(sequence);
    if (before.holder == payload.holder && before.event_sequence == payload.event_sequence) close(run, sequence);
  }
  run.record.reserved += payload.count;
  run.open_reservations.push_back(entry.sequence);
  reservations[entry.sequence] = {payload.event_sequence, payload.count, std::move(payload.holder), true};
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
  const EventEntry& place = event_entries.at(reservation.event_sequence);
  Run& run = runs[place.run];
  if (run.record.finished) nonsense("its run was finished before");
  const std::int64_t unused = reservation.count - payload.used;
  close(run, payload.reservation);
  reservation.count = payload.used;
  run.tally.add(place.run_use, -unused);
  datasets[run.dataset].tally.add(place.dataset_use, -unused);
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
  const auto& budget = datasets[run.dataset].budget;
  if (!budget || budget->sequence != payload.budget_sequence) nonsense("the budget it names was not in force");
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
