// Periods of budgets: a calendar unit, or the last so many days. Whole days of UTC, so that everybody counts the same.
#pragma once

#include <cstdint>
#include <string>

namespace hushgrad::ledger {

/// Throws InvalidArgument unless `period` is empty, "month", "quarter" or "year" of the calendar, or "1d" to "3660d".
void check_period(const std::string& period);

/// The day (since 1970-01-01 UTC) of a time in microseconds.
std::int64_t day_of(std::int64_t microseconds);

/// The first day whose charges still count on `day`. For n days that is n days before, so that nothing drops out before
/// n times 24 hours have passed, at whatever time of the day it was charged.
std::int64_t first_day(const std::string& period, std::int64_t day);

}  // namespace hushgrad::ledger
