// Several processes on one ledger: the cap holds to the step.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <vector>

#include "accounting/accountants/accountant.h"
#include "accounting/calibrate.h"
#include "accounting/ledger/ledger.h"
#include "accounting/ledger/temporary_folder.h"
#include "dpcore/error.h"

namespace hushgrad {
namespace {

using ledger_test::TemporaryFolder;

constexpr double kDelta = 1e-5;
constexpr double kBudget = 1.5;

// Each process charges its event until it is refused: once more than it could if it had the budget for itself, as it has where the
// others start late. Returns how many ended by a refusal.
int charge_in_processes(const std::string& path, const std::vector<Event>& events) {
  std::vector<pid_t> children;
  for (const Event& event : events) {
    const pid_t child = fork();
    if (child == 0) {
      int result = 1;
      try {
        const auto ledger = Ledger::open(path);
        const std::string run = ledger->begin_run({"mimic", "", "", ""});
        const std::int64_t most = affordable_steps(Event::composed({}), event, kBudget, kDelta);
        for (std::int64_t i = 0; i <= most; ++i) ledger->charge(run, event);
      } catch (const BudgetExceeded&) {
        result = 0;
      } catch (const Error& error) {
        std::fprintf(stderr, "child: %s\n", error.what());
      }
      _exit(result);
    }
    children.push_back(child);
  }
  int refused = 0;
  for (pid_t child : children) {
    int status = 0;
    waitpid(child, &status, 0);
    refused += WIFEXITED(status) && WEXITSTATUS(status) == 0;
  }
  return refused;
}

TEST(LedgerConcurrency, ProcessesThatTakeTheSameStepsUseTheBudgetUpExactly) {
  const TemporaryFolder folder;
  const std::string path = folder / "l.db";
  const Event step = Event::gaussian(40);
  Ledger::open(path)->set_budget("mimic", kBudget, kDelta);
  EXPECT_EQ(charge_in_processes(path, std::vector<Event>(4, step)), 4);
  const auto ledger = Ledger::open(path);
  EXPECT_GE(static_cast<std::int64_t>(ledger->steps("mimic").size()),
            affordable_steps(Event::composed({}), step, kBudget, kDelta));
  EXPECT_LE(ledger->spent("mimic", kDelta).upper, kBudget);
  EXPECT_GT(epsilon(Event::composed({ledger->dataset_history("mimic"), step}), kDelta).upper, kBudget);
  EXPECT_TRUE(ledger->verify().ok);
}

TEST(LedgerConcurrency, ProcessesThatTakeDifferentStepsStayWithinTheBudget) {
  const TemporaryFolder folder;
  const std::string path = folder / "l.db";
  const std::vector<Event> events = {Event::gaussian(30), Event::gaussian(45), Event::gaussian(60)};
  Ledger::open(path)->set_budget("mimic", kBudget, kDelta);
  EXPECT_EQ(charge_in_processes(path, events), 3);
  const auto ledger = Ledger::open(path);
  EXPECT_LE(ledger->spent("mimic", kDelta).upper, kBudget);
  for (const Event& event : events) {
    EXPECT_GT(epsilon(Event::composed({ledger->dataset_history("mimic"), event}), kDelta).upper, kBudget)
        << "refused although it fits";
  }
  EXPECT_EQ(ledger->runs("mimic").size(), 3u);
  EXPECT_TRUE(ledger->verify().ok);
}

TEST(LedgerConcurrency, ProcessesThatRaceToMakeTheLedgerShareOne) {
  for (int round = 0; round < 5; ++round) {
    const TemporaryFolder folder;
    const std::string path = folder / "l.db";
    std::vector<pid_t> children;
    for (int i = 0; i < 4; ++i) {
      const pid_t child = fork();
      if (child == 0) {
        try {
          Ledger::open(path)->begin_run({"mimic", "", "", ""});
        } catch (const Error& error) {
          std::fprintf(stderr, "child: %s\n", error.what());
          _exit(1);
        }
        _exit(0);
      }
      children.push_back(child);
    }
    for (pid_t child : children) {
      int status = 0;
      waitpid(child, &status, 0);
      EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    EXPECT_EQ(Ledger::open(path, false)->runs().size(), 4u);
  }
}

}  // namespace
}  // namespace hushgrad
