#include "accounting/ledger/account.h"

#include "accounting/ledger/period.h"

namespace hushgrad::ledger {

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

bool Account::covers(const RunInfo& info) const {
  return (purpose.empty() || purpose == info.purpose) && (actor.empty() || actor == info.actor) &&
         (team.empty() || team == info.team);
}

bool Account::is_of(const BudgetLimit& limit) const {
  return purpose == limit.purpose && actor == limit.actor && team == limit.team && period == limit.period;
}

void Account::spend(std::size_t use, std::int64_t count, std::int64_t day) {
  advance(day);
  if (!counts(day)) return;  // the clock of somebody who is behind, in the last period
  tally.add(use, count);
  if (!period.empty()) days_[day][use] += count;
  if (budget) gate.spend(tally.use(use).event, tally.use(use).key, count);
}

void Account::give_back(std::size_t use, std::int64_t count, std::int64_t day) {
  if (!counts(day)) return;
  tally.add(use, -count);
  if (!period.empty()) days_[day][use] -= count;
}

bool Account::lets_go_at(std::int64_t day) const {
  return !period.empty() && !days_.empty() && days_.begin()->first < first_day(period, day);
}

void Account::advance(std::int64_t day) {
  if (period.empty()) return;
  const std::int64_t first = first_day(period, day);
  if (first <= first_) return;
  first_ = first;
  while (!days_.empty() && days_.begin()->first < first) {
    for (const auto& [use, count] : days_.begin()->second) tally.add(use, -count);
    days_.erase(days_.begin());
    gate.reset();
  }
}

void Account::clear() {
  tally = {};
  days_.clear();
  gate.reset();
}

}  // namespace hushgrad::ledger
