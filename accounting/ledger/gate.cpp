#include "accounting/ledger/gate.h"

#include <algorithm>
#include <utility>

#include "accounting/calibrate.h"

namespace hushgrad::ledger {
namespace {

// Different events that take turns on one dataset (two training jobs, say) share one query. More than a few at a time
// are not worth composing.
constexpr std::size_t kMaxShared = 4;

}  // namespace

BudgetGate::Allowance* BudgetGate::find(const std::string& key) {
  const auto found = std::find_if(allowances_.begin(), allowances_.end(), [&](const auto& a) { return a.key == key; });
  return found == allowances_.end() ? nullptr : &*found;
}

std::int64_t BudgetGate::allowance(const std::string& key) const {
  const auto* allowance = const_cast<BudgetGate*>(this)->find(key);
  return allowance == nullptr ? 0 : allowance->left;
}

bool BudgetGate::allows(const std::string& key) const { return allowance(key) > 0; }

void BudgetGate::refill(const Event& history, const Event& event, const std::string& key, const Budget& budget) {
  std::vector<Allowance> shared = std::exchange(allowances_, {});
  if (std::none_of(shared.begin(), shared.end(), [&](const auto& a) { return a.key == key; })) {
    if (shared.size() == kMaxShared) shared.erase(shared.begin());
    shared.push_back({key, event, 0});
  }
  if (shared.size() > 1) {
    std::vector<Event> round;
    for (const auto& allowance : shared) round.push_back(allowance.event);
    const std::int64_t rounds =
        affordable_steps(history, Event::composed(std::move(round)), budget.epsilon, budget.delta);
    for (auto& allowance : shared) allowance.left = rounds;
    if (rounds > 0) {
      allowances_ = std::move(shared);
      return;
    }
  }
  allowances_.push_back({key, event, affordable_steps(history, event, budget.epsilon, budget.delta)});
}

void BudgetGate::spend(const Event& event, const std::string& key, std::int64_t count) {
  if (auto* allowance = find(key); allowance != nullptr && allowance->left >= count) {
    allowance->left -= count;
    return;
  }
  // Not foreseen: nothing known so far holds. The event is kept, so that the next query takes it into account.
  for (auto& allowance : allowances_) allowance.left = 0;
  if (find(key) != nullptr) return;
  if (allowances_.size() == kMaxShared) allowances_.erase(allowances_.begin());
  allowances_.push_back({key, event, 0});
}

void BudgetGate::reset() { allowances_.clear(); }

}  // namespace hushgrad::ledger
