// The budget check of a step without an accountant query a step.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "accounting/event.h"
#include "accounting/ledger/records.h"

namespace hushgrad::ledger {

/// How many more charges of which events a dataset can certainly bear, as of the newest entry that was applied.
///
/// The allowances hold together: any mix of charges within all of them keeps the composed epsilon within the budget,
/// because the epsilon of a composition never falls when a part is added. An allowance is only ever an under-estimate
/// of what fits; when it is used up the accountant is asked again. Every charge on the dataset, also one of another
/// process, must be told to spend(), and every new budget to reset().
class BudgetGate {
 public:
  /// How many more of `key` certainly fit.
  std::int64_t allowance(const std::string& key) const;
  /// Whether one more `key` (the event's canonical JSON) certainly fits.
  bool allows(const std::string& key) const;
  /// Asks the accountant with `history` (all charges so far); afterwards allows(key) says whether one more fits, exactly
  /// as the accountant bounds it. Throws what the accountant throws, and then allows nothing.
  void refill(const Event& history, const Event& event, const std::string& key, const Budget& budget);
  /// `count` charges happened.
  void spend(const Event& event, const std::string& key, std::int64_t count = 1);
  void reset();

 private:
  struct Allowance {
    std::string key;
    Event event;
    std::int64_t left;
  };
  Allowance* find(const std::string& key);

  std::vector<Allowance> allowances_;
};

}  // namespace hushgrad::ledger
