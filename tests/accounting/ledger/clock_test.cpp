// Clocks that go forward, back and past 2038: time only ever closes, and what a question saw counts for nothing.
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <string>

#include "accounting/access/people.h"
#include "accounting/ledger/ledger.h"
#include "accounting/ledger/state_folder.h"
#include "accounting/ledger/temporary_folder.h"
#include "dpcore/error.h"
#include "dpcore/keys/utc_time.h"

namespace {
std::atomic<std::int64_t> shift{0};  // seconds by which the clock of this process is wrong
}

// In front of the one of libc, for this process and everything that it links.
extern "C" int clock_gettime(clockid_t which, timespec* time) noexcept {
  const long failed = syscall(SYS_clock_gettime, which, time);
  if (failed == 0 && which == CLOCK_REALTIME) time->tv_sec += shift;
  return static_cast<int>(failed);
}

namespace hushgrad {
namespace {

using ledger_test::TemporaryFolder;

const Event kStep = Event::gaussian(20);
constexpr double kDelta = 1e-5;
constexpr std::int64_t kDay = 86'400;

class Clock {
 public:
  explicit Clock(std::int64_t seconds) { shift = seconds; }
  ~Clock() { shift = 0; }
};

// Steps until a budget refuses.
int use_up(Ledger& ledger, const std::string& run) {
  for (int steps = 0;; ++steps) {
    try {
      ledger.charge(run, kStep);
    } catch (const BudgetExceeded&) {
      return steps;
    }
    if (steps > 1000) return steps;
  }
}

class Clocks : public testing::Test {
 protected:
  Clocks() {
    ledger_ = Ledger::open(path_);
    ledger_->set_budget({.dataset = "d", .epsilon = 1, .delta = kDelta, .period = "30d"});
    run_ = ledger_->begin_run({"d", "", "", ""});
  }
  TemporaryFolder folder_;
  ledger_test::StateFolder state_{folder_ / "state"};
  std::string path_ = folder_ / "l.db", run_;
  std::shared_ptr<Ledger> ledger_;
};

TEST_F(Clocks, TheClockOfThisTestIsTheOneTheLedgerSees) {
  const Clock later(40 * kDay);
  ledger_->charge(run_, kStep);
  EXPECT_GT(ledger_->steps("d").at(0).time / 1'000'000, syscall(SYS_time, nullptr) + 39 * kDay);
}

TEST_F(Clocks, AQuestionThatIsAskedAheadOfTimeEndsNoPeriod) {
  const int fits = use_up(*ledger_, run_);
  ASSERT_GT(fits, 3);
  {
    const Clock ahead(400 * kDay);
    EXPECT_EQ(ledger_->budget_status("d").at(0).spent.upper, 0) << "as it would be then";
  }
  EXPECT_GT(ledger_->budget_status("d").at(0).spent.upper, 0.5);
  EXPECT_EQ(use_up(*ledger_, run_), 0) << "nothing is opened";
}

TEST_F(Clocks, AChargeThatFailsAheadOfTimeEndsNoPeriod) {
  use_up(*ledger_, run_);
  {
    const Clock ahead(400 * kDay);
    EXPECT_THROW(ledger_->charge(run_, Event::unsupported("a test")), Unsupported);
  }
  EXPECT_EQ(use_up(*ledger_, run_), 0);
}

TEST_F(Clocks, ForwardEndsAPeriodOnRecordAndBackOpensNothing) {
  const int fits = use_up(*ledger_, run_);
  {
    const Clock ahead(31 * kDay + 3600);
    EXPECT_EQ(use_up(*ledger_, run_), fits) << "another period";
  }
  EXPECT_EQ(use_up(*ledger_, run_), 0) << "the ledger has seen the later time";
  const Clock behind(-400 * kDay);
  EXPECT_EQ(use_up(*ledger_, run_), 0);
  EXPECT_EQ(use_up(*Ledger::open(path_), run_), 0) << "for whoever opens it";
  std::int64_t before = 0;
  for (const LedgerEntry& entry : ledger_->entries()) {
    EXPECT_GE(entry.time, before);
    before = entry.time;
  }
  EXPECT_TRUE(ledger_->verify().ok) << ledger_->verify().reason;
}

TEST_F(Clocks, SecondsOutsideOf32BitsAreTimesLikeAnyOther) {
  for (const char* when : {"2038-01-19T03:14:08Z", "2106-02-07T06:28:16Z", "2262-04-11T23:00:00Z"}) {
    const Clock then(utc_seconds(when).value() - utc_now());
    const int fits = use_up(*ledger_, run_);
    EXPECT_GT(fits, 3) << when;
    EXPECT_EQ(ledger_->steps("d").back().time / 1'000'000 / kDay, utc_seconds(when).value() / kDay) << when;
    EXPECT_EQ(use_up(*Ledger::open(path_), run_), 0) << when;
  }
  EXPECT_TRUE(Ledger::open(path_)->verify().ok);
}

TEST_F(Clocks, BeforeThereWasAClockCountsAsTheLargestTimeSeen) {
  const std::int64_t started = ledger_->run(run_).started;
  const Clock before_1970(-utc_now() - 10 * kDay);
  ledger_->charge(run_, kStep);
  EXPECT_GE(ledger_->steps("d").back().time, started);
  const auto fresh = Ledger::open(folder_ / "old.db");
  fresh->charge(fresh->begin_run({"d", "", "", ""}), kStep);
  EXPECT_TRUE(fresh->verify().ok) << fresh->verify().reason;
}

TEST_F(Clocks, GrantsApprovalsAndBrokenGlassesEndForGood) {
  ledger_test::People people;
  const std::string path = folder_ / "people.db";
  const auto officer = people.found(path);
  officer->set_budget({.dataset = "d", .epsilon = 1, .delta = kDelta});
  const BudgetLimit more{.dataset = "d", .epsilon = 2, .delta = kDelta};
  const auto paper = ledger_test::approved(officer->proposal(more), people.officer, people.approver, 600);
  officer->break_glass({Action::raise_budget, "d", "a test", 600});
  const auto trainer = Ledger::open(path, false);
  trainer->identify(people.trainer);
  const std::string run = trainer->begin_run({"d", "", "", "{}"});
  {
    const Clock ahead(7200);
    EXPECT_THROW(trainer->charge(run, kStep), Denied) << "an hour was granted";
    EXPECT_THROW(officer->set_budget(more), Denied) << "ten minutes were opened";
  }
  EXPECT_THROW(trainer->charge(run, kStep), Denied) << "the ledger has seen the later time";
  EXPECT_THROW(officer->set_budget(more), Denied);
  ledger_test::present(*officer, paper);
  EXPECT_THROW(officer->set_budget(more), Denied) << "and so has what was approved for ten minutes";
  EXPECT_EQ(officer->records("audit").back().fields.at("reason"), "the approvals that were presented do not hold (expired)");
  EXPECT_EQ(officer->budget("d")->epsilon, 1);
  EXPECT_TRUE(officer->verify().ok) << officer->verify().reason;
}

}  // namespace
}  // namespace hushgrad
