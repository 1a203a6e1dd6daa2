#include "accounting/ledger/period.h"

#include <charconv>
#include <chrono>

#include "dpcore/error.h"

namespace hushgrad::ledger {
namespace {

constexpr std::int64_t kDay = std::int64_t{86'400} * 1'000'000;
constexpr std::int64_t kMostDays = 3660;

// 0 for another form.
std::int64_t days_in(const std::string& period) {
  std::int64_t days = 0;
  if (period.size() < 2 || period.back() != 'd' || period.front() == '0') return 0;
  const char* last = period.data() + period.size() - 1;
  const auto [end, error] = std::from_chars(period.data(), last, days);
  return error == std::errc() && end == last && days <= kMostDays && days > 0 ? days : 0;
}

bool is_calendar(const std::string& period) { return period == "month" || period == "quarter" || period == "year"; }

}  // namespace

void check_period(const std::string& period) {
  if (period.empty() || is_calendar(period) || days_in(period) > 0) return;
  throw InvalidArgument(message("[ledger] Expected the period month, quarter, year, or 1d to ", kMostDays,
                                "d, received another text. Leave it out for a budget without a period."));
}

std::int64_t day_of(std::int64_t microseconds) {
  return microseconds >= 0 ? microseconds / kDay : -((-microseconds + kDay - 1) / kDay);
}

std::int64_t first_day(const std::string& period, std::int64_t day) {
  using namespace std::chrono;
  if (!is_calendar(period)) return day - days_in(period);
  const year_month_day date{sys_days{days{day}}};
  const unsigned month_number = static_cast<unsigned>(date.month());
  const unsigned first = period == "year" ? 1 : period == "quarter" ? (month_number - 1) / 3 * 3 + 1 : month_number;
  return sys_days{year_month_day{date.year(), month{first}, std::chrono::day{1}}}.time_since_epoch().count();
}

}  // namespace hushgrad::ledger
