// What some runs spend together, and the cap on it.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "accounting/event.h"
#include "accounting/ledger/dataset_info.h"
#include "accounting/ledger/gate.h"
#include "accounting/ledger/records.h"

namespace hushgrad::ledger {

/// An event and how often it was charged.
struct Use {
  std::string key;  // canonical JSON of the event
  Event event;
  std::int64_t count = 0;
};

/// Distinct events in order of first use.
class Tally {
 public:
  /// Position of the event in uses(); a new one starts at count 0.
  std::size_t position(const std::string& key, const Event& event);
  const Use& use(std::size_t position) const { return uses_[position]; }
  void add(std::size_t position, std::int64_t count) { uses_[position].count += count; }
  /// count must not pass what the event has.
  void take_away(const std::string& key, std::int64_t count) { uses_[positions_.at(key)].count -= count; }
  /// A composition that holds each event that happened once, with its count.
  Event composed() const;

 private:
  std::vector<Use> uses_;
  std::unordered_map<std::string, std::size_t> positions_;
};

/// Without purpose, actor and team: all runs. With a period: only what was charged in it counts.
struct Account {
  std::string purpose, actor, team, period;
  std::optional<Budget> budget;
  Tally tally;  // of the period, as of the newest day that was seen
  BudgetGate gate;

  bool covers(const RunInfo& info) const;
  bool is_of(const BudgetLimit& limit) const;
  /// Charges of `day` happened.
  void spend(std::size_t use, std::int64_t count, std::int64_t day);
  /// Of the charges of `day`, so many did not happen.
  void give_back(std::size_t use, std::int64_t count, std::int64_t day);
  /// Lets go of what lies before the period of `day`. An earlier day than the newest one changes nothing.
  void advance(std::int64_t day);
  /// Whether advance() would let go of something.
  bool lets_go_at(std::int64_t day) const;
  void clear();

 private:
  bool counts(std::int64_t day) const { return period.empty() || day >= first_; }

  std::int64_t first_ = INT64_MIN;  // day that still counts
  std::map<std::int64_t, std::map<std::size_t, std::int64_t>> days_;  // day -> use -> count; only with a period
};

}  // namespace hushgrad::ledger
