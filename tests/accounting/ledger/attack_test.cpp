// Attacks on a ledger with access rules and blocks: cuts, kills, full disks, lost answers, restored backups, clocks. Short
// here; long_runs.sh makes them long by environment variables.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>
#include <vector>

#include "accounting/access/people.h"
#include "accounting/accountants/accountant.h"
#include "accounting/calibrate.h"
#include "accounting/ledger/cutting_proxy.h"
#include "accounting/ledger/engines.h"
#include "accounting/ledger/faulty_vfs.h"
#include "accounting/ledger/session.h"
#include "accounting/ledger/state_folder.h"

namespace hushgrad {
namespace {

using ledger_test::approved;
using ledger_test::CuttingProxy;
using ledger_test::Engine;
using ledger_test::FaultyVfs;
using ledger_test::in_seconds;
using ledger_test::People;
using ledger_test::present;
using ledger_test::server;
using ledger_test::StateFolder;
using ledger_test::TemporaryFolder;

const Event kStep = Event::gaussian(50);
constexpr double kDelta = 1e-5;

int asked_for(const char* variable, int otherwise) {
  const char* text = std::getenv(variable);
  return text == nullptr ? otherwise : std::atoi(text);
}

std::string contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// What has returned, and so must be there whatever happens next.
struct Done {
  std::int64_t steps = 0, decisions = 0;
  double cap = 0;
  bool revoked = false;
};

// A life of a ledger with access rules: caps, an approval, a run in blocks, a denial, a revocation. `at` is called after each.
class Life {
 public:
  explicit Life(const std::string& path) : ledger(people.found(path)), path_(path) {
    ledger->set_budget({.dataset = "ward-7", .epsilon = 1, .delta = kDelta});
    done.cap = 1;
  }

  void go_on(const std::function<void()>& at) {
    const auto step = [&](const std::function<void()>& body, const std::function<void()>& note) {
      body();
      note();
      at();
    };
    const BudgetLimit more{.dataset = "ward-7", .epsilon = 2, .delta = kDelta};
    present(*ledger, approved(ledger->proposal(more), people.officer, people.approver));
    step([&] { ledger->set_budget(more); }, [&] { done.cap = 2; });
    const auto trainer = Ledger::open(path_, false);
    trainer->identify(people.trainer);
    std::string run;
    step([&] { run = trainer->begin_run({"ward-7", "", "", "{}"}); }, [&] { ++done.decisions; });
    for (int i = 0; i < 4; ++i) step([&] { trainer->charge_step(run, kStep); }, [&] { ++done.steps; });
    step(
        [&] {
          try {
            trainer->set_budget({.dataset = "ward-7", .epsilon = 9, .delta = kDelta});
          } catch (const Denied&) {
          }
        },
        [] {});
    step([&] { trainer->finish_run(run, "completed"); }, [] {});
    step([&] { ledger->revoke("actor:tom", "left"); }, [&] { done.revoked = true; });
  }

  People people;
  std::shared_ptr<Ledger> ledger;
  Done done;

 private:
  std::string path_;
};

void expect_kept(const std::string& path, const Done& done, const std::string& when) {
  const auto ledger = Ledger::open(path, false);
  const VerifyResult verdict = ledger->verify();
  ASSERT_TRUE(verdict.ok) << when << ": " << verdict.reason;
  EXPECT_GE(static_cast<std::int64_t>(ledger->steps().size()), done.steps) << when;
  EXPECT_LE(static_cast<std::int64_t>(ledger->steps().size()), done.steps + 4) << when;
  EXPECT_GE(static_cast<std::int64_t>(ledger->runs().size()), done.decisions) << when;
  EXPECT_GE(ledger->budget("ward-7")->epsilon, done.cap) << when;
  EXPECT_LE(ledger->budget("ward-7")->epsilon, 2) << when;
  if (done.revoked) EXPECT_EQ(ledger->access().actor("tom"), nullptr) << when;
}

TEST(LedgerAttacks, APowerCutOrAKillAtAnyOperationKeepsDecisionsBlocksAndRevocations) {
  const TemporaryFolder folder;
  const std::string path = folder / "l.db";
  struct Moment {
    FaultyVfs::Files cut, killed;
    Done done;
  };
  std::vector<Moment> moments;
  {
    FaultyVfs vfs;
    Life life(path);
    vfs.remember(life.ledger->path(), contents(path));
    const auto take = [&] { moments.push_back({vfs.power_cut(), vfs.live(), life.done}); };
    vfs.before_operation = take;
    life.go_on(take);
    vfs.before_operation = nullptr;
  }
  ASSERT_GT(moments.size(), 60u);
  const auto every = static_cast<std::size_t>(asked_for("HUSHGRAD_LEDGER_EVERY", 5));
  std::size_t tried = 0;
  for (std::size_t number = moments.size() % every; number < moments.size(); number += every, ++tried) {
    for (const FaultyVfs::Files* files : {&moments[number].cut, &moments[number].killed}) {
      const TemporaryFolder after;
      const StateFolder stranger(after / "state");  // nobody remembers more than the disk
      for (const auto& [name, bytes] : *files) {
        std::ofstream(after / std::filesystem::path(name).filename().string(), std::ios::binary) << bytes;
      }
      expect_kept(after / "l.db", moments[number].done, "moment " + std::to_string(number));
    }
  }
  if (!HasFailure()) std::printf("%zu of %zu moments, cut and killed: 0 refunds, 0 unreadable\n", tried, moments.size());
}

TEST(LedgerAttacks, ADiskThatFillsUpAtAnyOperationTakesNothingBack) {
  const int every = asked_for("HUSHGRAD_LEDGER_EVERY", 8);
  int faults = 0;
  for (int operation = 0;; operation += every) {
    const TemporaryFolder folder;
    const std::string path = folder / "l.db";
    FaultyVfs vfs;
    Life life(path);
    vfs.fail_at(operation, true);
    vfs.failed = false;
    try {
      life.go_on([] {});
    } catch (const LedgerError&) {
    }
    const bool reached = vfs.failed;
    vfs.heal();
    expect_kept(path, life.done, "operation " + std::to_string(operation));
    if (!reached) break;
    ++faults;
    ASSERT_LT(operation, 1000);
  }
  std::printf("%d operations on a disk that is full from then on\n", faults);
  EXPECT_GT(faults * every, 60);
}

TEST(LedgerAttacks, AClockInAnotherCenturyOpensNothingAndLosesNothing) {
  const std::string path = ":memory:";
  const TemporaryFolder folder;
  for (const char* when : {"2038-01-19T03:14:08Z", "2106-02-07T06:28:16Z", "2262-04-11T23:47:16Z"}) {
    const std::string file = folder / (std::string(when).substr(0, 4) + ".db");
    People people;
    const auto ledger = people.found(file);
    ledger->set_budget({.dataset = "d", .epsilon = 0.5, .delta = kDelta, .period = "30d"});
    ledger->add_actor({"ned", people.stranger->public_key()});
    ledger->grant({.name = "ned", .role = Role::trainer});  // without end
    const auto trainer = Ledger::open(file, false);
    trainer->identify(people.trainer);
    const std::string run = trainer->begin_run({"d", "", "", "{}"});
    trainer->charge(run, kStep);
    {
      ledger::Session session(file, false);
      session.write([&](ledger::State& state, ledger::Batch& batch) {
        const std::int64_t before = std::exchange(state.time, utc_seconds(when).value() * 1'000'000);
        batch = ledger::Batch(state);
        batch.append("audit", LedgerRecord{"audit", {{"action", "x"}, {"actor", ""}, {"decision", "denied"}, {"policy", ""}, {"reason", ""}, {"subject", ""}}});
        state.time = before;
      });
    }
    EXPECT_THROW(trainer->charge(run, kStep), Denied) << "its grant is over for good, although the clock is back";
    const auto other = Ledger::open(file, false);
    other->identify(people.stranger);
    const std::string later = other->begin_run({"d", "", "", "{}"});
    other->charge(later, kStep);
    EXPECT_EQ(time_text(other->run(later).started), when);
    EXPECT_EQ(other->steps("d").size(), 2u);
    EXPECT_TRUE(other->verify().ok) << other->verify().reason;
  }
}

class Attacks : public ledger_test::OnBothEngines {
 protected:
  // Runs `body` in `count` processes; how many said yes.
  static int in_processes(int count, const std::function<bool()>& body) {
    std::vector<pid_t> children;
    for (int i = 0; i < count; ++i) {
      const pid_t child = fork();
      if (child == 0) {
        bool yes = false;
        try {
          yes = body();
        } catch (const Error& error) {
          std::fprintf(stderr, "child: %s\n", error.what());
        }
        _exit(yes ? 0 : 1);
      }
      children.push_back(child);
    }
    int found = 0;
    for (const pid_t child : children) {
      int status = 0;
      waitpid(child, &status, 0);
      found += WIFEXITED(status) && WEXITSTATUS(status) == 0;
    }
    return found;
  }
};

// 16 processes want twice what the cap allows.
TEST_P(Attacks, SixteenProcessesReachACapInTheMiddle) {
  const int each = asked_for("HUSHGRAD_LEDGER_RESERVATIONS", 20);
  const Event step = Event::gaussian(2000);
  const std::int64_t fits = 16 * each / 2;
  const double cap = epsilon(Event::self_composed(step, fits), kDelta).upper;
  Ledger::open(path_)->set_budget("mimic", cap, kDelta);
  const int refused = in_processes(16, [&] {
    const auto ledger = Ledger::open(path_, false);
    const std::string run = ledger->begin_run({"mimic", "", "", ""});
    for (int i = 0; i < each; ++i) {
      try {
        ledger->charge(run, step);
      } catch (const BudgetExceeded&) {
        return true;
      }
    }
    return false;
  });
  const auto ledger = Ledger::open(path_, false);
  const auto steps = static_cast<std::int64_t>(ledger->steps("mimic").size());
  std::int64_t of_runs = 0, refusals = 0;
  for (const RunRecord& run : ledger->runs()) {
    of_runs += run.steps;
    refusals += run.refusals;
  }
  EXPECT_EQ(steps, of_runs) << "none lost, none twice";
  EXPECT_EQ(refusals, refused);
  EXPECT_GE(refused, 1);
  EXPECT_GE(steps, fits);
  EXPECT_EQ(steps, affordable_steps(Event::composed({}), step, cap, kDelta)) << "the cap, not one more, not one less";
  EXPECT_TRUE(ledger->verify().ok) << ledger->verify().reason;
  std::printf("16 processes, %d each, cap at %lld: %lld charged, %d refused\n", each, static_cast<long long>(fits),
              static_cast<long long>(steps), refused);
}

INSTANTIATE_TEST_SUITE_P(Engines, Attacks, testing::Values(Engine::sqlite, Engine::postgres), ledger_test::engine_name);

class PostgresAttacks : public ledger_test::OnBothEngines {};
INSTANTIATE_TEST_SUITE_P(Engine, PostgresAttacks, testing::Values(Engine::postgres), ledger_test::engine_name);

TEST_P(PostgresAttacks, ALineCutAfterCommitWasSentCountsAsSpent) {
  const int cuts = asked_for("HUSHGRAD_LEDGER_CUTS", 3);
  const std::string run = Ledger::open(path_)->begin_run({"mimic", "", "", ""});
  chmod(folder_.path().c_str(), 0700);
  std::string host;
  for (const char c : folder_.path().string()) host += c == '/' ? std::string("%2F") : std::string(1, c);
  const std::string through = "postgresql://postgres@" + host + "/" + database_;
  std::int64_t returned = 0;
  for (int number = 0; number < cuts; ++number) {
    CuttingProxy proxy(folder_.path().string(), server().socket());
    const auto ledger = Ledger::open(through, false);
    ledger->charge(run, kStep);
    ++returned;
    proxy.cut_after_commit = true;
    EXPECT_THROW(ledger->charge(run, kStep), LedgerError);
    EXPECT_EQ(proxy.cuts, 1);
    EXPECT_THROW(ledger->charge(run, kStep), LedgerError) << "a handle that does not know never writes again";
    // The server did what it was told; nobody was told that it did. It is spent.
    EXPECT_EQ(Ledger::open(path_, false)->run(run).steps, returned + 1);
    ++returned;
  }
  EXPECT_TRUE(Ledger::open(path_, false)->verify().ok);
  std::printf("%d lines cut after COMMIT: all %d charges are spent\n", cuts, cuts);
}

TEST_P(PostgresAttacks, ARestoredBaseBackupTakesNoCharge) {
  std::string run;
  {
    const auto ledger = Ledger::open(path_);
    run = ledger->begin_run({"mimic", "", "", ""});
    ledger->charge(run, kStep);
  }
  ASSERT_TRUE(server().stop_immediately() && server().back_up() && server().start()) << server().log();
  for (int i = 0; i < 3; ++i) Ledger::open(path_, false)->charge(run, kStep);
  ASSERT_TRUE(server().stop_immediately() && server().restore() && server().start()) << server().log();
  const auto ledger = Ledger::open(path_, false);
  EXPECT_EQ(ledger->run(run).steps, 1);
  EXPECT_EQ(ledger->missing().size(), 1u);
  EXPECT_THROW(ledger->charge(run, kStep), LedgerError);
  EXPECT_THROW(ledger->begin_run({"mimic", "", "", ""}), LedgerError);
  EXPECT_THROW(ledger->repair("ada", "ada", "the disk died"), InvalidArgument) << "one person";
  ledger->repair("ada", "bob", "the disk died");
  ledger->charge(run, kStep);
  EXPECT_EQ(Ledger::open(path_, false)->run(run).steps, 2);
  EXPECT_TRUE(ledger->verify().ok) << ledger->verify().reason;
}

}  // namespace
}  // namespace hushgrad
