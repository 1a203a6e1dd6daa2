// What a ledger promises to one honest caller. Crashes, other processes and tampering have files of their own.
#include "accounting/ledger/ledger.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "accounting/accountants/accountant.h"
#include "accounting/calibrate.h"
#include "accounting/ledger/raw_sqlite.h"
#include "accounting/ledger/state_folder.h"
#include "accounting/ledger/temporary_folder.h"
#include "dpcore/error.h"

namespace hushgrad {
namespace {

using ledger_test::TemporaryFolder;

const Event kStep = Event::poisson_sampled(0.01, Event::gaussian(1.0));
constexpr double kDelta = 1e-5;

std::string begin(Ledger& ledger, const std::string& dataset = "mimic") {
  return ledger.begin_run({dataset, "model", "ada", R"({"epochs":3})"});
}

TEST(Ledger, ChargesComposeOverRunsAndStayAfterReopening) {
  const TemporaryFolder folder;
  {
    const auto ledger = Ledger::open(folder / "l.db");
    EXPECT_TRUE(ledger->path().ends_with("/l.db"));
    for (int run = 0; run < 2; ++run) {
      const std::string id = begin(*ledger);
      for (int step = 0; step < 3; ++step) ledger->charge(id, kStep);
      ledger->finish_run(id, run == 0 ? "failed" : "completed");
    }
  }
  const auto ledger = Ledger::open(folder / "l.db", false);
  EXPECT_EQ(ledger->dataset_history("mimic"), Event::composed({Event::self_composed(kStep, 6)}));
  EXPECT_EQ(ledger->run_history(ledger->runs()[0].run_id), Event::composed({Event::self_composed(kStep, 3)}));
  EXPECT_EQ(ledger->spent("mimic", kDelta).upper, epsilon(Event::composed({Event::self_composed(kStep, 6)}), kDelta).upper);
  EXPECT_LT(ledger->run_spent(ledger->runs()[0].run_id, kDelta).upper, ledger->spent("mimic", kDelta).upper);
  EXPECT_EQ(ledger->runs()[0].status, "failed");
  EXPECT_TRUE(ledger->verify().ok) << ledger->verify().reason;
}

TEST(Ledger, DistinctEventsAreKeptApartAndInOrderOfFirstUse) {
  const auto ledger = Ledger::open(":memory:");
  const Event other = Event::gaussian(3);
  const std::string one = begin(*ledger), two = begin(*ledger);
  for (const Event& event : {other, kStep, other}) ledger->charge(one, event);
  ledger->charge(two, kStep);
  EXPECT_EQ(ledger->dataset_history("mimic"),
            Event::composed({Event::self_composed(other, 2), Event::self_composed(kStep, 2)}));
  const auto steps = ledger->steps(std::nullopt, one);
  ASSERT_EQ(steps.size(), 3u);
  EXPECT_EQ(steps[1].event, kStep);
  EXPECT_EQ(steps[1].dataset, "mimic");
  EXPECT_LT(steps[1].sequence, steps[2].sequence);
  EXPECT_LE(steps[1].time, steps[2].time);
}

TEST(Ledger, AChargeIsASmallEntry) {
  const auto ledger = Ledger::open(":memory:");
  const std::string run = begin(*ledger);
  ledger->charge(run, kStep);
  const auto before = ledger->head().sequence;
  ledger->charge(run, kStep);
  const auto rows = ledger->entries(before + 1);
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_EQ(rows[0].kind, "charge");
  EXPECT_LT(rows[0].payload.size(), 20u);
}

TEST(Ledger, DatasetsDoNotShareABudget) {
  const auto ledger = Ledger::open(":memory:");
  const std::string run = begin(*ledger, "a");
  ledger->set_budget("b", 0, kDelta);
  EXPECT_NO_THROW(ledger->charge(run, kStep));
  EXPECT_THROW(ledger->charge(begin(*ledger, "b"), kStep), BudgetExceeded);
  EXPECT_EQ(ledger->datasets(), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(ledger->runs("b").size(), 1u);
  EXPECT_EQ(ledger->steps("b").size(), 0u);
}

TEST(Ledger, TheBudgetIsUsedToTheLastStepThatFits) {
  const auto ledger = Ledger::open(":memory:");
  const Event step = Event::gaussian(20);
  const std::int64_t fits = affordable_steps(Event::composed({}), step, 1.5, kDelta);
  ASSERT_GT(fits, 5);
  ledger->set_budget("mimic", 1.5, kDelta);
  const std::string run = begin(*ledger);
  for (std::int64_t i = 0; i < fits; ++i) ASSERT_NO_THROW(ledger->charge(run, step)) << i;
  EXPECT_THROW(ledger->charge(run, step), BudgetExceeded);
  EXPECT_LE(ledger->spent("mimic", kDelta).upper, 1.5);
  EXPECT_EQ(ledger->run(run).steps, fits);
}

TEST(Ledger, ARefusalIsRecordedAndChangesNothing) {
  const auto ledger = Ledger::open(":memory:");
  ledger->set_budget("mimic", 1, kDelta);
  const std::string run = begin(*ledger);
  ledger->charge(run, Event::gaussian(20));
  const Event before = ledger->dataset_history("mimic");
  try {
    ledger->charge(run, Event::gaussian(0.5));
    FAIL() << "the charge passed";
  } catch (const BudgetExceeded& error) {
    const std::string text = error.what();
    for (const char* word : {"'mimic'", "epsilon 1 ", "delta 1e-05", "raise the budget"}) {
      EXPECT_NE(text.find(word), std::string::npos) << word << " in " << text;
    }
  }
  EXPECT_EQ(ledger->dataset_history("mimic"), before);
  EXPECT_EQ(ledger->run(run).steps, 1);
  EXPECT_EQ(ledger->run(run).refusals, 1);
  EXPECT_EQ(ledger->entries().back().kind, "refusal");
  EXPECT_NO_THROW(ledger->charge(run, Event::gaussian(100)));
  EXPECT_TRUE(ledger->verify().ok);
}

TEST(Ledger, NoNoiseIsInfinitelyExpensive) {
  const auto ledger = Ledger::open(":memory:");
  const std::string run = begin(*ledger);
  ledger->charge(run, Event::gaussian(0));
  EXPECT_TRUE(std::isinf(ledger->spent("mimic", kDelta).upper));
  ledger->set_budget("mimic", 1e6, kDelta);
  EXPECT_THROW(ledger->charge(run, kStep), BudgetExceeded);  // nothing fits behind it
  ledger->set_budget("other", 1e6, kDelta);
  EXPECT_THROW(ledger->charge(begin(*ledger, "other"), Event::gaussian(0)), BudgetExceeded);
}

TEST(Ledger, TheNewestBudgetWinsAndMayLieBelowWhatIsSpent) {
  const auto ledger = Ledger::open(":memory:");
  const std::string run = begin(*ledger);
  const Event step = Event::gaussian(20);
  ledger->set_budget("mimic", 1, kDelta);
  ledger->charge(run, step);
  ledger->set_budget("mimic", 0.01, 1e-6);
  EXPECT_EQ(ledger->budget("mimic")->epsilon, 0.01);
  EXPECT_EQ(ledger->budget("mimic")->delta, 1e-6);
  EXPECT_THROW(ledger->charge(run, step), BudgetExceeded);
  ledger->set_budget("mimic", 1, kDelta);
  EXPECT_NO_THROW(ledger->charge(run, step));
  EXPECT_EQ(ledger->budget("unknown"), std::nullopt);
}

TEST(Ledger, AnEventThatNobodyBoundsIsRecordedWithoutABudgetAndRefusedWithOne) {
  const auto ledger = Ledger::open(":memory:");
  const Event odd = Event::unsupported("test");
  EXPECT_NO_THROW(ledger->charge(begin(*ledger, "free"), odd));
  EXPECT_THROW(ledger->spent("free", kDelta), Unsupported);
  ledger->set_budget("capped", 1, kDelta);
  EXPECT_THROW(ledger->charge(begin(*ledger, "capped"), odd), Unsupported);
  EXPECT_EQ(ledger->steps("capped").size(), 0u);
}

TEST(Ledger, FinishedRunsTakeNoCharge) {
  const auto ledger = Ledger::open(":memory:");
  const std::string run = begin(*ledger);
  ledger->charge(run, kStep);
  const double spent = ledger->spent("mimic", kDelta).upper;
  ledger->finish_run(run, "failed");
  const auto head = ledger->head();
  EXPECT_NO_THROW(ledger->finish_run(run, "failed"));
  EXPECT_EQ(ledger->head().hash, head.hash);
  EXPECT_THROW(ledger->finish_run(run, "completed"), InvalidState);
  EXPECT_THROW(ledger->charge(run, kStep), InvalidState);
  EXPECT_EQ(ledger->spent("mimic", kDelta).upper, spent);
  EXPECT_TRUE(ledger->run(run).finished.has_value());
}

TEST(Ledger, NothingSpentIsZero) {
  const auto ledger = Ledger::open(":memory:");
  EXPECT_EQ(ledger->spent("unknown", kDelta).upper, 0);
  EXPECT_EQ(ledger->dataset_history("unknown"), Event::composed({}));
  EXPECT_EQ(ledger->run_spent(begin(*ledger), kDelta).upper, 0);
  EXPECT_TRUE(ledger->runs("unknown").empty());
}

TEST(Ledger, ArgumentsOutsideTheirDomainAreRefusedAndNotRecorded) {
  const auto ledger = Ledger::open(":memory:");
  const std::string run = begin(*ledger);
  const auto head = ledger->head();
  for (double epsilon : {-1.0, double(INFINITY), double(NAN)}) {
    EXPECT_THROW(ledger->set_budget("d", epsilon, kDelta), InvalidArgument);
  }
  for (double delta : {0.0, 1.0, -1.0, double(NAN)}) EXPECT_THROW(ledger->set_budget("d", 1, delta), InvalidArgument);
  EXPECT_THROW(ledger->set_budget("", 1, kDelta), InvalidArgument);
  EXPECT_THROW(ledger->begin_run({"d\n", "", "", ""}), InvalidArgument);
  EXPECT_THROW(ledger->begin_run({"d", "\x1b", "", ""}), InvalidArgument);
  EXPECT_THROW(ledger->begin_run({"d", "", "\xff", ""}), InvalidArgument);
  EXPECT_THROW(ledger->begin_run({"d", "", "", "[]"}), InvalidArgument);
  for (const char* id : {"", "' OR 1=1 --", "0123456789abcdef0123456789abcdef"}) {
    EXPECT_THROW(ledger->charge(id, kStep), InvalidArgument);
    EXPECT_THROW(ledger->finish_run(id, "failed"), InvalidArgument);
    EXPECT_THROW(ledger->run_spent(id, kDelta), InvalidArgument);
    EXPECT_THROW(ledger->steps(std::nullopt, id), InvalidArgument);
  }
  EXPECT_THROW(ledger->finish_run(run, "refunded"), InvalidArgument);
  EXPECT_THROW(ledger->spent("mimic", 0), InvalidArgument);
  EXPECT_THROW(ledger->entries(1, -1), InvalidArgument);
  EXPECT_EQ(ledger->head().hash, head.hash);
}

TEST(Ledger, NamesAreOnlyEverData) {
  const auto ledger = Ledger::open(":memory:");
  const std::string name = "x'); DROP TABLE entry; --\"\\";
  ledger->charge(begin(*ledger, name), kStep);
  EXPECT_EQ(ledger->runs(name).size(), 1u);
  EXPECT_EQ(ledger->datasets().front(), name);
  EXPECT_TRUE(ledger->verify().ok);
}

TEST(Ledger, EntriesFormAGapFreeChainWhoseTimeNeverGoesBack) {
  const auto ledger = Ledger::open(":memory:");
  const std::string run = begin(*ledger);
  for (int i = 0; i < 5; ++i) ledger->charge(run, kStep);
  const auto rows = ledger->entries();
  ASSERT_EQ(rows.size(), 8u);  // genesis, run, event, five charges
  EXPECT_EQ(rows[0].previous, std::string(96, '0'));
  for (std::size_t i = 0; i < rows.size(); ++i) {
    EXPECT_EQ(rows[i].sequence, static_cast<std::int64_t>(i) + 1);
    if (i == 0) continue;
    EXPECT_EQ(rows[i].previous, rows[i - 1].hash);
    EXPECT_GE(rows[i].time, rows[i - 1].time);
  }
  EXPECT_EQ(ledger->head().hash, rows.back().hash);
  EXPECT_EQ(ledger->entries(3, 2).front().sequence, 3);
  EXPECT_EQ(ledger->entries(3, 2).size(), 2u);
}

TEST(Ledger, HeadsKeptElsewhereAreRecognised) {
  const TemporaryFolder folder;
  const auto ledger = Ledger::open(folder / "l.db");
  const std::string run = begin(*ledger);
  std::filesystem::copy_file(folder / "l.db", folder / "old.db");
  ledger->charge(run, kStep);
  const LedgerHead head = ledger->head();
  ledger->charge(run, kStep);
  EXPECT_TRUE(ledger->contains(head));
  EXPECT_FALSE(ledger->contains({head.sequence, std::string(96, '0')}));
  EXPECT_FALSE(ledger->contains({1'000, head.hash}));
  const ledger_test::StateFolder stranger(folder / "stranger");
  const auto restored = Ledger::open(folder / "old.db");
  EXPECT_TRUE(restored->verify().ok);
  EXPECT_FALSE(restored->contains(head)) << "a ledger that was put back must not pass for the new one";
  EXPECT_EQ(restored->id(), ledger->id());
  EXPECT_NE(Ledger::open(":memory:")->id(), ledger->id());
}

TEST(Ledger, MemoryIsNotDurableAndNotShared) {
  const auto one = Ledger::open(":memory:"), two = Ledger::open(":memory:");
  EXPECT_FALSE(one->durable());
  EXPECT_EQ(one->path(), ":memory:");
  begin(*one);
  EXPECT_TRUE(two->runs().empty());
  EXPECT_FALSE(std::filesystem::exists(":memory:"));
}

TEST(Ledger, TwoHandlesSeeEachOther) {
  const TemporaryFolder folder;
  const auto one = Ledger::open(folder / "l.db"), two = Ledger::open(folder / "l.db");
  const std::string run = begin(*one);
  two->charge(run, kStep);
  one->charge(run, kStep);
  EXPECT_EQ(two->run(run).steps, 2);
  EXPECT_EQ(one->head().hash, two->head().hash);
}

TEST(Ledger, ThreadsShareAHandle) {
  const auto ledger = Ledger::open(":memory:");
  const Event step = Event::gaussian(20);
  const std::int64_t fits = affordable_steps(Event::composed({}), step, 2, kDelta);
  ledger->set_budget("mimic", 2, kDelta);
  const std::string run = begin(*ledger);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      try {
        for (int charges = 0; charges < 1'000; ++charges) ledger->charge(run, step);
      } catch (const BudgetExceeded&) {
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(ledger->run(run).steps, fits);
  EXPECT_EQ(ledger->run(run).refusals, 4);
}

TEST(Ledger, AForkedChildMustOpenItsOwn) {
  const TemporaryFolder folder;
  auto ledger = Ledger::open(folder / "l.db");
  const std::string run = begin(*ledger);
  const pid_t child = fork();
  if (child == 0) {
    int refusals = 0;
    const auto refused = [&](auto&& call) {
      try {
        call();
      } catch (const LedgerError&) {
        ++refusals;
      }
    };
    refused([&] { ledger->charge(run, kStep); });
    refused([&] { ledger->head(); });
    refused([&] { ledger->verify(); });
    refused([&] { ledger->entries(); });
    ledger.reset();
    Ledger::open(folder / "l.db")->charge(run, kStep);
    _exit(refusals);
  }
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 4);
  ledger->charge(run, kStep);
  EXPECT_EQ(ledger->run(run).steps, 2);
}

TEST(Ledger, AReaderWithoutWritePermissionMayReadAndVerifyOnly) {
  const TemporaryFolder folder;
  const std::string path = folder / "l.db";
  {
    const auto ledger = Ledger::open(path);
    ledger->charge(begin(*ledger), kStep);
  }
  namespace fs = std::filesystem;
  fs::permissions(folder.path(), fs::perms(0755));
  fs::permissions(path, fs::perms(0444));
  const pid_t child = fork();
  if (child == 0) {
    if (geteuid() == 0 && setuid(65534) != 0) _exit(9);  // permissions do not bind root
    const auto ledger = Ledger::open(path);
    if (!ledger->verify().ok || ledger->steps().size() != 1) _exit(8);
    try {
      ledger->charge(ledger->runs()[0].run_id, kStep);
    } catch (const LedgerError& error) {
      _exit(std::string(error.what()).find("read-only") == std::string::npos ? 7 : 0);
    }
    _exit(6);
  }
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_EQ(Ledger::open(path)->steps().size(), 1u);
}

TEST(Ledger, AFolderInWhichNothingCanBeMadeTakesNoCharge) {
  const TemporaryFolder folder;
  const std::string path = folder / "l.db";
  Ledger::open(path)->charge(begin(*Ledger::open(path)), kStep);
  namespace fs = std::filesystem;
  fs::permissions(path, fs::perms(0666));
  fs::permissions(folder.path(), fs::perms(0555));
  const pid_t child = fork();
  if (child == 0) {
    if (geteuid() == 0 && setuid(65534) != 0) _exit(9);  // permissions do not bind root
    unsetenv("HUSHGRAD_STATE_DIR");
    setenv("HOME", "/nonexistent", 1);
    const auto ledger = Ledger::open(path);
    for (int i = 0; i < 3; ++i) {
      try {
        ledger->charge(ledger->runs()[0].run_id, kStep);
        _exit(6);
      } catch (const LedgerError&) {
      }
    }
    _exit(ledger->verify().ok && ledger->steps().size() == 1 ? 0 : 8);
  }
  int status = 0;
  waitpid(child, &status, 0);
  fs::permissions(folder.path(), fs::perms(0755));
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_EQ(Ledger::open(path)->steps().size(), 1u);
}

TEST(Ledger, PlainSqliteCannotChangeEntries) {
  const TemporaryFolder folder;
  const std::string path = folder / "l.db";
  begin(*Ledger::open(path));
  for (const char* sql : {"UPDATE entry SET payload = '{}'", "DELETE FROM entry", "DELETE FROM entry WHERE sequence = 2",
                          "INSERT INTO entry SELECT 9, time, kind, payload, previous, hash FROM entry WHERE sequence = 2",
                          "PRAGMA recursive_triggers = ON; INSERT OR REPLACE INTO entry SELECT * FROM entry"}) {
    EXPECT_NE(ledger_test::run_sql(path, sql), "") << sql;
  }
  EXPECT_TRUE(Ledger::open(path)->verify().ok);
}

}  // namespace
}  // namespace hushgrad
