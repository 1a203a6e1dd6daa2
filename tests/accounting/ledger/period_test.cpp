#include "accounting/ledger/period.h"

#include <gtest/gtest.h>

#include "accounting/ledger/account.h"
#include "dpcore/error.h"
#include "dpcore/keys/utc_time.h"

namespace hushgrad::ledger {
namespace {

std::int64_t day(const std::string& date) { return day_of(utc_seconds(date + "T00:00:00Z").value() * 1'000'000); }

TEST(Period, BeginsWithTheCalendarUnit) {
  EXPECT_EQ(first_day("month", day("2028-02-29")), day("2028-02-01"));
  EXPECT_EQ(first_day("quarter", day("2026-03-31")), day("2026-01-01"));
  EXPECT_EQ(first_day("quarter", day("2026-04-01")), day("2026-04-01"));
  EXPECT_EQ(first_day("quarter", day("2026-12-31")), day("2026-10-01"));
  EXPECT_EQ(first_day("year", day("2038-01-19")), day("2038-01-01"));
}

TEST(Period, OfDaysLetsNothingDropOutEarly) {
  EXPECT_EQ(first_day("30d", day("2026-03-31")), day("2026-03-01"));
  EXPECT_EQ(first_day("1d", day("2026-03-01")), day("2026-02-28"));
}

TEST(Period, RefusesOtherTexts) {
  for (const char* good : {"", "month", "quarter", "year", "1d", "30d", "3660d"}) EXPECT_NO_THROW(check_period(good));
  for (const char* bad : {"d", "0d", "01d", "-1d", "3661d", "30", "30 d", "week", "99999999999999999999d", "1.5d", "Month"}) {
    EXPECT_THROW(check_period(bad), InvalidArgument) << bad;
  }
}

TEST(Period, ATimeBelongsToOneDay) {
  EXPECT_EQ(day_of(0), 0);
  EXPECT_EQ(day_of(86'400'000'000 - 1), 0);
  EXPECT_EQ(day_of(86'400'000'000), 1);
  EXPECT_EQ(day_of(-1), -1);
}

// Beside a list of every charge that is filtered again at every question.
TEST(Account, CountsWhatASlowListCounts) {
  for (const std::string period : {"", "7d", "month", "quarter"}) {
    Account account;
    account.period = period;
    const std::size_t use = account.tally.position("e", Event::gaussian(1));
    std::vector<std::pair<std::int64_t, std::int64_t>> charges;
    std::int64_t newest = day("2026-01-20");
    unsigned random = 12345;
    for (int i = 0; i < 400; ++i) {
      random = random * 1664525u + 1013904223u;
      newest += random >> 29;                                     // 0 to 7 days later
      const std::int64_t when = newest - (random >> 20 & 3);      // a clock that is a little behind
      const std::int64_t count = 1 + (random >> 10 & 7);
      account.advance(newest);
      account.spend(use, count, when);
      charges.emplace_back(when, count);
      if ((random & 15) == 0) {
        account.give_back(use, 1, when);
        charges.emplace_back(when, -1);
      }
      std::int64_t expected = 0;
      for (const auto& [at, number] : charges) {
        if (period.empty() || at >= first_day(period, newest)) expected += number;
      }
      ASSERT_EQ(account.tally.use(use).count, expected) << period << " step " << i;
    }
  }
}

}  // namespace
}  // namespace hushgrad::ledger
