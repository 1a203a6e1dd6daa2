// What the entries mean: runs, budgets and how often each event was charged. Derived from the chain and from nothing
// else, by applying one entry after the other, so there is no total on disk that could disagree with the entries.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "accounting/access/access_state.h"
#include "accounting/event.h"
#include "accounting/ledger/account.h"
#include "accounting/ledger/chain.h"
#include "accounting/ledger/cover.h"
#include "accounting/ledger/dataset_info.h"
#include "accounting/ledger/neighbours.h"
#include "accounting/ledger/records.h"

namespace hushgrad::ledger {

struct Dataset {
  std::string name;
  std::optional<DatasetInfo> info;
  std::vector<std::size_t> runs;  // positions in State::runs; those of datasets made from this one are not among them
  std::deque<Account> accounts;   // the first covers all runs, also those of datasets made from this one
  std::map<Neighbours, std::int64_t> charged;  // how often, of what the first account counts
  bool is_known = false;          // described, with a run or with a budget; not merely named as a parent
  Account& whole() { return accounts.front(); }
};

struct Run {
  RunRecord record;
  Neighbours neighbours;
  std::size_t dataset = 0;  // position in State::datasets
  Tally tally;
  std::unordered_map<std::string, std::int64_t> event_entries;  // key -> sequence of the entry that describes it
  std::vector<std::int64_t> open_reservations;                  // their sequences
  std::optional<Account> cap;  // of this run alone, where the policy has one
};

/// Where a charge of one event entry is counted.
struct EventEntry {
  struct Place {
    std::size_t dataset, account, use;
  };
  std::size_t run = 0;
  std::size_t run_use = 0;
  std::size_t cap_use = 0;
  std::vector<Place> places;
  std::map<std::int64_t, std::int64_t> days;  // day -> how often it was charged, for budgets with a period
};

/// A block of steps that was reserved at once.
struct Reservation {
  std::int64_t event_sequence = 0;
  std::int64_t count = 0;  // what is spent of it: all, until its holder says that less was used
  std::string holder;
  std::int64_t day = 0;
  bool open = true;  // nobody has said yet how many were used
};

class State {
 public:
  /// Applies the next entry. Empty on success; otherwise what is wrong with it, and the state must not be used further.
  std::string apply(const Entry& entry);

  std::int64_t sequence = 0;  // of the newest entry applied; 0 before the first
  std::int64_t time = 0;
  Hash hash{};
  std::string ledger_id;
  std::deque<Dataset> datasets;  // in order of first use
  std::deque<Run> runs;          // in order of begin_run
  std::unordered_map<std::int64_t, EventEntry> event_entries;   // by sequence
  std::unordered_map<std::int64_t, Reservation> reservations;   // by sequence
  std::int64_t schema = 0;
  bool moved = false;  // to another place, which this copy does not know to be
  AccessState access;
  /// Signatures up to here were checked by this user before; see Session::recall().
  std::int64_t trusted = 0;
  std::unordered_set<std::string> repaired;  // hashes of entries that were lost, which two people took note of

  Dataset* find_dataset(const std::string& name);
  Run* find_run(const std::string& run_id);
  /// Those that a charge of the run has to pass: of its dataset and of all that this one was made from.
  std::vector<Account*> accounts_of(Run& run);
  Account& account_at(const EventEntry::Place& place) { return datasets[place.dataset].accounts[place.account]; }
  /// The cap that this limit would replace.
  Account* account_of(const BudgetLimit& limit);
  /// What writing this entry needs with access rules; nothing for what needs no decision of its own.
  std::optional<Need> need_of(std::string_view kind, const std::string& payload);
  /// Why the dataset cannot have these parents; empty when it can.
  std::string family_fault(const DatasetInfo& info) const;
  /// What a run of these on the dataset could not be added up with, here or in what the dataset was made from: another comparison
  /// that was charged, or the adjacency of a description. Empty when there is nothing.
  std::string other_neighbours(const std::string& dataset, const Neighbours& neighbours) const;
  /// The same for the charges of a dataset that is described so.
  std::string other_neighbours(const DatasetInfo& info) const;
  /// The dataset and all that it was made from, by position.
  std::vector<std::size_t> ancestry(std::size_t dataset) const;

 private:
  std::string link_fault(const Entry& entry) const;
  void apply_genesis(const Entry& entry);
  void apply_budget(const Entry& entry);
  void apply_run(const Entry& entry);
  void apply_event(const Entry& entry);
  void apply_charge(const Entry& entry);
  void apply_reserve(const Entry& entry);
  void apply_settle(const Entry& entry);
  void apply_migration(const Entry& entry);
  void spend(EventEntry& place, std::int64_t count, std::int64_t day);
  /// Charges of the run came to be, or turned out not to have happened.
  void count_neighbours(const Run& run, const std::vector<EventEntry::Place>& places, std::int64_t count);
  std::string conflict(std::size_t dataset, const Neighbours& neighbours) const;
  EventEntry& described(std::int64_t event_sequence);
  void close(Run& run, std::int64_t reservation);
  void apply_dataset(const Entry& entry);
  void apply_record(const Entry& entry);
  /// Counts everything again, after a change of what counts where.
  void recount();
  std::vector<EventEntry::Place> places_of(const Run& run, const std::string& key, const Event& event);
  void apply_refusal(const Entry& entry);
  void apply_finish(const Entry& entry);
  void apply_audit(const Entry& entry, const LedgerRecord& record);
  void check_cover(const Entry& entry);
  Need need_of_run(const std::string& run_id);
  std::size_t dataset_position(const std::string& name);
  std::size_t known_run(const std::string& run_id) const;

  Cover cover_;
  std::unordered_map<std::string, std::size_t> dataset_positions_;
  std::unordered_map<std::string, std::size_t> run_positions_;
};

}  // namespace hushgrad::ledger
