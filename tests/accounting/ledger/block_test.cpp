// Blocks: how large they get, that they are spent at once, and what is stated about them at the end.
#include "accounting/ledger/block.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <random>
#include <thread>
#include <vector>

#include "accounting/accountants/accountant.h"
#include "accounting/calibrate.h"
#include "accounting/ledger/chain.h"
#include "accounting/ledger/database.h"
#include "accounting/ledger/ledger.h"
#include "accounting/ledger/payload.h"
#include "accounting/ledger/temporary_folder.h"
#include "dpcore/error.h"

namespace hushgrad {
namespace {

using ledger::next_block;
using ledger_test::TemporaryFolder;

const Event kStep = Event::gaussian(50);
constexpr double kDelta = 1e-5;

TEST(LedgerBlock, GrowsFromOneByDoublingUpToWhatTheDiskNeeds) {
  EXPECT_EQ(next_block(0, 0.01, 0.05, 1024), 1);
  EXPECT_EQ(next_block(1, 0.01, 0.05, 1024), 2);
  EXPECT_EQ(next_block(32, 0.01, 0.05, 1024), 40);    // 10 ms is 0.5 % of 40 steps of 50 ms
  EXPECT_EQ(next_block(1024, 0.01, 0.05, 1024), 40);  // and no more than that
  EXPECT_EQ(next_block(512, 0.01, 0.0, 1024), 1024);
  EXPECT_EQ(next_block(512, 0.01, 0.0, 100), 100);
  EXPECT_EQ(next_block(64, 0.01, 60.0, 1024), 1);
}

// A training of 50 ms a step on disks that need 1 to 25 ms: simulated, so that no clock decides.
TEST(LedgerBlock, CommitsCostLessThanOnePerCentOfTheSteps) {
  for (const double commit : {0.001, 0.008, 0.025}) {
    double spent = 0;
    std::int64_t steps = 0, block = 0;
    while (steps < 10'000) {
      block = next_block(block, commit, 0.05, ledger::kMaxBlock);
      EXPECT_LE(block, steps + 1);  // a crash leaves unused at most about what was used
      steps += block;
      spent += commit;
    }
    EXPECT_LT(spent, 0.01 * 0.05 * static_cast<double>(steps)) << commit;
  }
}

class Blocks : public testing::Test {
 protected:
  Blocks() : path_(folder_ / "l.db"), ledger_(Ledger::open(path_)) { run_ = ledger_->begin_run({"mimic", "", "", ""}); }

  void take(int steps) {
    for (int i = 0; i < steps; ++i) ledger_->charge_step(run_, kStep);
  }
  RunRecord seen_by_others() const { return Ledger::open(path_, false)->run(run_); }
  Event steps(std::int64_t count) const { return Event::composed({Event::self_composed(kStep, count)}); }

  TemporaryFolder folder_;
  std::string path_;
  std::shared_ptr<Ledger> ledger_;
  std::string run_;
};

TEST_F(Blocks, AreSpentForEverybodyBeforeTheirFirstStep) {
  take(4);  // without a pause, so the blocks are 1, 2 and 4
  EXPECT_EQ(seen_by_others().steps, 7);
  EXPECT_EQ(seen_by_others().reserved, 4);
  EXPECT_EQ(Ledger::open(path_)->dataset_history("mimic"), steps(7));
  EXPECT_EQ(ledger_->dataset_history("mimic"), steps(7));
  EXPECT_EQ(ledger_->run_history(run_), steps(4));
  EXPECT_EQ(Ledger::open(path_)->run_history(run_), steps(7));
  EXPECT_EQ(ledger_->steps().size(), 7u);
}

TEST_F(Blocks, AnOrderlyEndStatesWhatWasTaken) {
  take(5);
  ledger_->finish_run(run_, "completed");
  EXPECT_EQ(seen_by_others().steps, 5);
  EXPECT_EQ(seen_by_others().reserved, 0);
  EXPECT_EQ(ledger_->steps().size(), 5u);
  EXPECT_EQ(Ledger::open(path_)->dataset_history("mimic"), steps(5));
  EXPECT_TRUE(ledger_->verify().ok);
}

TEST_F(Blocks, SettlingLetsGoOfTheRestAndReservesAnewAfterwards) {
  take(5);
  ledger_->settle();
  EXPECT_EQ(seen_by_others().steps, 5);
  ledger_->settle();  // nothing to state
  take(1);
  EXPECT_EQ(seen_by_others().steps, 6);
}

TEST_F(Blocks, ClosingSettles) {
  take(5);
  ledger_.reset();
  EXPECT_EQ(seen_by_others().steps, 5);
  EXPECT_EQ(seen_by_others().reserved, 0);
}

TEST_F(Blocks, AnotherHandleNeverSettlesThem) {
  take(5);
  const auto other = Ledger::open(path_);
  other->settle();
  EXPECT_EQ(other->run(run_).steps, 7);
  other->finish_run(run_, "failed");
  ledger_.reset();  // too late: a finished run keeps what it has
  EXPECT_EQ(other->run(run_).steps, 7);
  EXPECT_EQ(other->run(run_).reserved, 4);
  EXPECT_TRUE(other->verify().ok);
}

TEST_F(Blocks, ALimitOfOneMakesEveryStepAnEntry) {
  ledger_->limit_block(1);
  take(5);
  EXPECT_EQ(seen_by_others().steps, 5);
  EXPECT_EQ(seen_by_others().reserved, 1);  // nobody else can know whether the last one happened
  EXPECT_THROW(ledger_->limit_block(0), InvalidArgument);
  EXPECT_THROW(ledger_->limit_block(1025), InvalidArgument);
}

TEST_F(Blocks, TheLastStepOfABudgetIsPermittedAndNotOneMore) {
  for (const double epsilon : {0.3, 0.6}) {
    const std::int64_t fits = affordable_steps(Event::composed({}), kStep, epsilon, kDelta);
    const std::string name = message("capped ", epsilon);
    ledger_->set_budget(name, epsilon, kDelta);
    const std::string run = ledger_->begin_run({name, "", "", ""});
    std::int64_t taken = 0;
    try {
      for (;; ++taken) ledger_->charge_step(run, kStep);
    } catch (const BudgetExceeded&) {
    }
    EXPECT_EQ(taken, fits);
    EXPECT_LE(ledger_->spent(name, kDelta).upper, epsilon);
    EXPECT_EQ(ledger_->run(run).refusals, 1);
  }
}

TEST_F(Blocks, AFinishedRunTakesNoStep) {
  ledger_->finish_run(run_, "completed");
  EXPECT_THROW(take(1), InvalidState);
  EXPECT_THROW(ledger_->charge_step(std::string(32, '0'), kStep), InvalidArgument);
}

TEST_F(Blocks, AChildOfForkTakesNoStepOutOfThem) {
  take(4);
  const pid_t child = fork();
  if (child == 0) {
    try {
      ledger_->charge_step(run_, kStep);
      _exit(1);
    } catch (const LedgerError&) {
      _exit(0);
    }
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST_F(Blocks, AFileThatWasReplacedGivesNoStepEvenInsideABlock) {
  take(4);
  std::filesystem::rename(path_, path_ + ".away");
  EXPECT_THROW(take(1), LedgerError);
  Ledger::open(path_);
  EXPECT_THROW(take(1), LedgerError);
}

TEST_F(Blocks, ThreadsShareThemAndNoStepIsTakenTwice) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) threads.emplace_back([&] { take(100); });
  for (auto& thread : threads) thread.join();
  ledger_->settle();
  EXPECT_EQ(seen_by_others().steps, 400);
}

// SIGKILL at any moment: no step that was taken is missing, and at most one block too much is spent, and reported.
TEST_F(Blocks, AKillLosesNoStepAndSpendsAtMostOneBlockMore) {
  const char* asked = std::getenv("HUSHGRAD_LEDGER_KILLS");
  const int kills = asked ? std::atoi(asked) : 60;
  std::mt19937 random(std::random_device{}());
  std::int64_t before = 0, most = 0, taken_in_all = 0;
  for (int number = 0; number < kills; ++number) {
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    const pid_t child = fork();
    if (child == 0) {
      try {
        const auto own = Ledger::open(path_, false);
        own->limit_block(32);
        while (true) {
          own->charge_step(run_, kStep);
          if (write(ends[1], "+", 1) != 1) _exit(2);
        }
      } catch (const Error&) {
      }
      _exit(3);
    }
    close(ends[1]);
    std::int64_t taken = 0;
    char buffer[4096];
    // At least so many steps: anywhere in a block of any size.
    for (const int wanted = 1 + static_cast<int>(random() % 60); taken < wanted; ++taken) {
      ASSERT_EQ(read(ends[0], buffer, 1), 1) << "the child could not charge";
    }
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 12'000));
    kill(child, SIGKILL);
    int status = 0;
    waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the child stopped by itself";
    for (ssize_t got; (got = read(ends[0], buffer, sizeof buffer)) > 0;) taken += got;
    close(ends[0]);
    const RunRecord record = seen_by_others();  // replays and checks the whole chain
    const std::int64_t added = record.steps - before;
    ASSERT_GE(added, taken) << "budget was given back at kill " << number;
    ASSERT_LE(added - taken, 32) << "more than a block at kill " << number;
    ASSERT_GE(record.reserved, added - taken) << "not reported at kill " << number;
    before = record.steps;
    most = std::max(most, added - taken);
    taken_in_all += taken;
  }
  const VerifyResult verdict = ledger_->verify();
  EXPECT_TRUE(verdict.ok) << verdict.reason;
  std::printf("%d kills, %lld steps taken, at most %lld spent too much by one kill\n", kills,
              static_cast<long long>(taken_in_all), static_cast<long long>(most));
}

// A ledger of the first version, as the release before wrote it.
std::string version_1_ledger(const std::string& path) {
  const std::string run = ledger::random_id();
  Ledger::open(path);
  ledger::Database database(path);
  std::string triggers[3];
  const char* names[] = {"entry_appends", "entry_is_kept", "entry_is_final"};
  for (int i = 0; i < 3; ++i) {
    triggers[i] = database.text(("SELECT sql FROM sqlite_schema WHERE name = '" + std::string(names[i]) + "'").c_str());
    database.execute(("DROP TRIGGER " + std::string(names[i])).c_str());
  }
  database.execute("DELETE FROM entry");
  ledger::Hash previous{};
  std::int64_t sequence = 0;
  const auto add = [&](std::string_view kind, const std::string& payload) {
    ledger::Entry entry{++sequence, 1'000'000 + sequence, std::string(kind), payload, previous, {}};
    previous = entry.hash = entry_hash(entry);
    ledger::Statement insert(database, "INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?)");
    insert.bind(1, entry.sequence).bind(2, entry.time).bind(3, entry.kind).bind(4, entry.payload);
    insert.bind(5, entry.previous).bind(6, entry.hash).step();
  };
  add(ledger::kGenesis, encode(ledger::GenesisPayload{run, 1}));
  add(ledger::kRun, encode(ledger::RunPayload{run, {"mimic", "", "", "{}"}}));
  add(ledger::kEvent, encode(ledger::EventPayload{run, kStep}));
  add(ledger::kCharge, encode(ledger::ChargePayload{3}));
  for (const std::string& trigger : triggers) database.execute(trigger.c_str());
  database.execute("PRAGMA user_version = 1");
  return run;
}

TEST(LedgerMigration, AnOlderLedgerOpensAndIsMarkedWithItsFirstNewEntry) {
  const TemporaryFolder folder;
  const std::string path = folder / "l.db";
  const std::string run = version_1_ledger(path);
  const auto ledger = Ledger::open(path, false);
  EXPECT_TRUE(ledger->verify().ok) << ledger->verify().reason;
  EXPECT_EQ(ledger->run(run).steps, 1);
  EXPECT_EQ(ledger::Database(path).integer("PRAGMA user_version"), 1);  // reading changes nothing
  ledger->charge_step(run, kStep);
  EXPECT_EQ(ledger::Database(path).integer("PRAGMA user_version"), 3);
  EXPECT_EQ(ledger->entries(5, 1).at(0).kind, "migration");
  EXPECT_EQ(ledger->run(run).steps, 2);
  EXPECT_TRUE(ledger->verify().ok) << ledger->verify().reason;
}

}  // namespace
}  // namespace hushgrad
