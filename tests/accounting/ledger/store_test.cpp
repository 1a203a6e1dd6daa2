// One contract, two engines: what a ledger promises must hold in a SQLite file and in a PostgreSQL database.
#include "accounting/ledger/store.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "accounting/accountants/accountant.h"
#include "accounting/calibrate.h"
#include "accounting/ledger/ledger.h"
#include "accounting/ledger/engines.h"
#include "accounting/ledger/postgres_store.h"
#include "accounting/ledger/temporary_folder.h"
#include "dpcore/error.h"

namespace hushgrad {
namespace {

using ledger_test::TemporaryFolder;

constexpr double kDelta = 1e-5;
const Event kStep = Event::gaussian(20);

using ledger_test::Engine;
using ledger_test::server;

class LedgerStore : public ledger_test::OnBothEngines {};

TEST_P(LedgerStore, KeepsWhatWasChargedForWhoeverOpensItNext) {
  std::string run;
  LedgerHead head;
  {
    const auto ledger = Ledger::open(path_);
    ledger->set_budget({.dataset = "mimic", .epsilon = 3, .delta = kDelta, .warning = 2});
    run = begin(*ledger);
    for (int i = 0; i < 3; ++i) ledger->charge(run, kStep);
    for (int i = 0; i < 5; ++i) ledger->charge_step(run, kStep);
    ledger->finish_run(run, "completed");
    head = ledger->head();
    EXPECT_TRUE(ledger->durable());
  }
  const auto ledger = Ledger::open(path_, false);
  EXPECT_EQ(ledger->run(run).steps, 8);
  EXPECT_EQ(ledger->run(run).status, "completed");
  EXPECT_EQ(ledger->head().hash, head.hash);
  EXPECT_TRUE(ledger->contains(head));
  EXPECT_EQ(ledger->steps().size(), 8u);
  EXPECT_EQ(ledger->dataset_history("mimic"), Event::composed({Event::self_composed(kStep, 8)}));
  EXPECT_TRUE(ledger->verify().ok) << ledger->verify().reason;
  EXPECT_EQ(ledger->entries(1, 1).at(0).kind, "genesis");
  EXPECT_EQ(ledger->entries(2, 3).size(), 3u);
}

TEST_P(LedgerStore, IsNotMadeWhenNobodyAsked) { EXPECT_THROW(Ledger::open(path_, false), LedgerError); }

TEST_P(LedgerStore, SeveralHandlesSeeOneChain) {
  const auto one = Ledger::open(path_), two = Ledger::open(path_);
  const std::string run = begin(*one);
  one->charge(run, kStep);
  two->charge(run, kStep);
  one->charge(run, kStep);
  EXPECT_EQ(one->run(run).steps, 3);
  EXPECT_EQ(two->run(run).steps, 3);
}

TEST_P(LedgerStore, NamesAreDataAndNothingElse) {
  const auto ledger = Ledger::open(path_);
  for (const std::string name : {"x'; DROP TABLE entry; --", "$1", "\\", "%s", "Charit\xc3\xa9", "\xf0\x9f\x8f\xa5", "a\"b", "../../etc"}) {
    ledger->charge(ledger->begin_run({name, name, name, ""}), kStep);
    EXPECT_EQ(ledger->steps(name).size(), 1u) << name;
  }
  EXPECT_EQ(Ledger::open(path_)->datasets(), ledger->datasets());
  EXPECT_TRUE(ledger->verify().ok);
}

TEST_P(LedgerStore, TheStorageItselfRefusesChangesDeletionsAndGaps) {
  const auto ledger = Ledger::open(path_);
  ledger->charge(begin(*ledger), kStep);
  EXPECT_TRUE(try_sql("SELECT count(*) FROM entry"));
  for (const char* sql : {"UPDATE entry SET payload = '{}' WHERE sequence = 2", "DELETE FROM entry", "DELETE FROM entry WHERE sequence = 4",
                          "INSERT INTO entry SELECT 9, time, kind, payload, previous, hash FROM entry WHERE sequence = 4"}) {
    EXPECT_FALSE(try_sql(sql)) << sql;
  }
  if (!is_sqlite()) {
    EXPECT_FALSE(try_sql("TRUNCATE entry"));
  }
  EXPECT_TRUE(ledger->verify().ok);
}

TEST_P(LedgerStore, EditsAreNamed) {
  const std::vector<std::pair<std::string, std::int64_t>> cases = {
      {"UPDATE entry SET payload = replace(payload, 'mimic', 'other') WHERE sequence = 2", 2},
      {"DELETE FROM entry WHERE sequence = 4", 4},
      {"UPDATE entry SET time = time + 1 WHERE sequence = 5", 5},
      {"UPDATE entry SET sequence = sequence + 100 WHERE sequence = 3", 3},
      {"DELETE FROM entry WHERE sequence = 6", 6},
  };
  for (const auto& [sql, first_bad] : cases) {
    const bool is_first = &sql == &cases.front().first;
    if (!is_first) {
      TearDown();
      if (is_sqlite()) path_ = folder_ / ("l" + std::to_string(first_bad) + sql.substr(0, 3) + ".db");
      else SetUp();
    }
    const auto ledger = Ledger::open(path_);
    const std::string run = begin(*ledger);
    for (int i = 0; i < 3; ++i) ledger->charge(run, kStep);  // entries 4 to 6
    edit(sql);
    const VerifyResult verdict = ledger->verify();
    EXPECT_FALSE(verdict.ok) << sql;
    EXPECT_EQ(verdict.first_bad, first_bad) << sql;
    EXPECT_THROW(Ledger::open(path_)->charge(run, kStep), LedgerError) << sql;
  }
}

TEST_P(LedgerStore, AMissingGuardTakesNoCharge) {
  const auto ledger = Ledger::open(path_);
  const std::string run = begin(*ledger);
  ASSERT_TRUE(try_sql(is_sqlite() ? "DROP TRIGGER entry_is_final" : "ALTER TABLE entry DISABLE TRIGGER entry_is_final"));
  EXPECT_THROW(ledger->charge(run, kStep), LedgerError);
  EXPECT_FALSE(ledger->verify().ok);
}

// Each process charges until it is refused, some step by step and some in blocks.
TEST_P(LedgerStore, ProcessesNeverPassTheCapTogether) {
  const double cap = 0.8;
  Ledger::open(path_)->set_budget("mimic", cap, kDelta);
  std::vector<pid_t> children;
  for (int i = 0; i < 16; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      int result = 1;
      try {
        const auto ledger = Ledger::open(path_, false);
        const std::string run = ledger->begin_run({"mimic", "", "", ""});
        while (true) i % 2 ? ledger->charge(run, kStep) : ledger->charge_step(run, kStep);
      } catch (const BudgetExceeded&) {
        result = 0;
      } catch (const Error& error) {
        std::fprintf(stderr, "child: %s\n", error.what());
      }
      _exit(result);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
  const auto ledger = Ledger::open(path_);
  EXPECT_EQ(static_cast<std::int64_t>(ledger->steps().size()), affordable_steps(Event::composed({}), kStep, cap, kDelta));
  EXPECT_LE(ledger->spent("mimic", kDelta).upper, cap);
  EXPECT_TRUE(ledger->verify().ok);
}

struct Taken {
  pid_t child;
  int end;
};

Taken charge_for_ever(const std::string& path, const std::string& run) {
  int ends[2];
  if (pipe(ends) != 0) std::abort();
  const pid_t child = fork();
  if (child == 0) {
    close(ends[0]);
    try {
      const auto ledger = Ledger::open(path, false);
      while (true) {
        ledger->charge_step(run, kStep);
        if (write(ends[1], "+", 1) != 1) _exit(2);
      }
    } catch (const Error&) {
    }
    _exit(3);
  }
  close(ends[1]);
  return {child, ends[0]};
}

TEST_P(LedgerStore, KilledProcessesLoseNoStep) {
  const auto ledger = Ledger::open(path_);
  const std::string run = begin(*ledger);
  std::mt19937 random(std::random_device{}());
  std::int64_t taken = 0, over = 0;
  const char* asked = std::getenv("HUSHGRAD_LEDGER_KILLS");  // a longer run by hand
  const int kills = asked ? std::atoi(asked) : 20;
  for (int number = 0; number < kills; ++number) {
    const Taken process = charge_for_ever(path_, run);
    char byte;
    for (int wanted = 1 + static_cast<int>(random() % 40); wanted > 0; --wanted) {
      ASSERT_EQ(read(process.end, &byte, 1), 1);
      ++taken;
    }
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 5'000));
    kill(process.child, SIGKILL);
    waitpid(process.child, nullptr, 0);
    while (read(process.end, &byte, 1) == 1) ++taken;
    close(process.end);
    // A server may still be committing what the dead client sent: the next writer waits for it.
    ledger->set_budget("another", 1, kDelta);
    const RunRecord record = ledger->run(run);
    ASSERT_GE(record.steps, taken) << number;
    ASSERT_LE(record.steps - taken, record.reserved) << number;
    over = record.steps - taken;
  }
  EXPECT_TRUE(ledger->verify().ok);
  std::printf("%d kills, %lld steps taken, %lld more spent\n", kills, static_cast<long long>(taken), static_cast<long long>(over));
}

TEST_P(LedgerStore, MovesWithEveryEntryAndTheOldPlaceTakesNoCharge) {
  const auto old = Ledger::open(folder_ / "old.db");
  const std::string run = begin(*old);
  for (int i = 0; i < 4; ++i) old->charge_step(run, kStep);
  const auto moved = old->move_to(path_, "ada");
  EXPECT_EQ(moved->id(), old->id());
  EXPECT_EQ(moved->dataset_history("mimic"), old->dataset_history("mimic"));
  EXPECT_TRUE(moved->contains(old->head()));
  EXPECT_THROW(old->charge(run, kStep), LedgerError);
  EXPECT_THROW(Ledger::open(folder_ / "old.db")->charge(run, kStep), LedgerError);
  moved->charge(run, kStep);
  EXPECT_EQ(Ledger::open(path_)->run(run).steps, 5);
  EXPECT_TRUE(moved->verify().ok) << moved->verify().reason;
  // And back again.
  const auto back = moved->move_to(folder_ / "back.db", "ada");
  EXPECT_THROW(moved->charge(run, kStep), LedgerError);
  back->charge(run, kStep);
  EXPECT_EQ(back->run(run).steps, 6);
}

TEST_P(LedgerStore, ABadExportIsNotImported) {
  const auto old = Ledger::open(folder_ / "old.db");
  const std::string run = begin(*old);
  for (int i = 0; i < 4; ++i) old->charge(run, kStep);
  const auto entries = old->entries();
  for (std::size_t i = 0; i < entries.size(); ++i) {
    auto changed = entries;
    changed[i].payload += " ";
    EXPECT_THROW(Ledger::import(path_, changed), LedgerError) << i;
    changed = entries;
    changed.erase(changed.begin() + static_cast<std::ptrdiff_t>(i));
    if (i + 1 < entries.size()) {
      EXPECT_THROW(Ledger::import(path_, changed), LedgerError) << i;
    }
  }
  EXPECT_THROW(Ledger::open(path_, false), LedgerError);
  // Half of it, then all of it: as after a crash.
  Ledger::import(path_, {entries.begin(), entries.begin() + 3});
  EXPECT_EQ(Ledger::import(path_, entries)->head().hash, old->head().hash);
  const auto another = Ledger::open(folder_ / "another.db");
  EXPECT_THROW(Ledger::import(path_, another->entries()), LedgerError);
}

INSTANTIATE_TEST_SUITE_P(Engines, LedgerStore, testing::Values(Engine::sqlite, Engine::postgres), ledger_test::engine_name);

class PostgresLedger : public LedgerStore {};
INSTANTIATE_TEST_SUITE_P(Engine, PostgresLedger, testing::Values(Engine::postgres), [](const auto&) { return "Postgres"; });

TEST_P(PostgresLedger, AServerThatStopsAtOnceLosesNoStep) {
  const char* asked = std::getenv("HUSHGRAD_LEDGER_RESTARTS");  // a longer run by hand
  const int restarts = asked ? std::atoi(asked) : 2;
  const char* many = std::getenv("HUSHGRAD_LEDGER_PROCESSES");
  const int together = many ? std::atoi(many) : 4;
  const std::string run = begin(*Ledger::open(path_));
  std::int64_t taken = 0;
  for (int number = 0; number < restarts; ++number) {
    std::vector<Taken> processes;
    for (int i = 0; i < together; ++i) processes.push_back(charge_for_ever(path_, run));
    char byte;
    for (const Taken& process : processes) {
      ASSERT_EQ(read(process.end, &byte, 1), 1);
      ++taken;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    ASSERT_TRUE(server().stop_immediately());
    for (const Taken& process : processes) {
      kill(process.child, SIGKILL);  // some are inside a block and would go on for a while
      waitpid(process.child, nullptr, 0);
      while (read(process.end, &byte, 1) == 1) ++taken;
      close(process.end);
    }
    ASSERT_TRUE(server().start()) << server().log();
    const auto ledger = Ledger::open(path_, false);
    ASSERT_GE(ledger->run(run).steps, taken) << number;
    ASSERT_LE(ledger->run(run).steps - taken, ledger->run(run).reserved) << number;
    ASSERT_TRUE(ledger->verify().ok) << ledger->verify().reason;
  }
}

TEST_P(PostgresLedger, AConnectionThatIsCutIsAnErrorAndTheNextCallFindsTheServerAgain) {
  const auto ledger = Ledger::open(path_);
  const std::string run = begin(*ledger);
  ledger->charge(run, kStep);
  ASSERT_TRUE(server().sql("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '" + database_ + "'"));
  try {
    ledger->charge(run, kStep);
  } catch (const LedgerError&) {
  }
  ledger->charge(run, kStep);
  EXPECT_GE(ledger->run(run).steps, 2);
  EXPECT_TRUE(ledger->verify().ok);
}

TEST_P(PostgresLedger, RolesCanDoWhatTheyNeedAndNoMore) {
  const auto owner = Ledger::open(path_);
  ASSERT_TRUE(server().sql(database_, "DO $$ BEGIN CREATE ROLE writer LOGIN IN ROLE hushgrad_writer; CREATE ROLE reader LOGIN IN ROLE "
                                      "hushgrad_reader; EXCEPTION WHEN duplicate_object THEN NULL; END $$;"));
  const auto writer = Ledger::open(server().address(database_, "writer"), false);
  const std::string run = begin(*writer);
  writer->charge(run, kStep);
  const auto reader = Ledger::open(server().address(database_, "reader"), false);
  EXPECT_EQ(reader->run(run).steps, 1);
  EXPECT_TRUE(reader->verify().ok) << reader->verify().reason;
  EXPECT_THROW(reader->charge(run, kStep), LedgerError);
  EXPECT_FALSE(server().sql(database_, "SET ROLE writer; DELETE FROM hushgrad.entry"));
  EXPECT_FALSE(server().sql(database_, "SET ROLE writer; ALTER TABLE hushgrad.entry DISABLE TRIGGER ALL"));
  EXPECT_FALSE(server().sql(database_, "SET ROLE writer; TRUNCATE hushgrad.entry"));
  EXPECT_FALSE(server().sql(database_, "SET ROLE reader; INSERT INTO hushgrad.entry SELECT * FROM hushgrad.entry"));
}

TEST_P(PostgresLedger, AGuardThatLooksAsItShouldAndDoesNothingIsFound) {
  const std::vector<std::pair<const char*, const char*>> weakened = {
      {"DROP TRIGGER entry_is_final ON entry; CREATE TRIGGER entry_is_final BEFORE UPDATE OR DELETE ON entry FOR EACH ROW WHEN (false) "
       "EXECUTE FUNCTION entry_is_final()", "DROP TRIGGER entry_is_final ON entry; CREATE TRIGGER entry_is_final BEFORE UPDATE OR DELETE ON "
       "entry FOR EACH ROW EXECUTE FUNCTION entry_is_final()"},
      {"DROP TRIGGER entry_is_final ON entry; CREATE TRIGGER entry_is_final BEFORE UPDATE OF time OR DELETE ON entry FOR EACH ROW "
       "EXECUTE FUNCTION entry_is_final()", "DROP TRIGGER entry_is_final ON entry; CREATE TRIGGER entry_is_final BEFORE UPDATE OR DELETE ON "
       "entry FOR EACH ROW EXECUTE FUNCTION entry_is_final()"},
      {"ALTER FUNCTION entry_appends() RESET ALL", "ALTER FUNCTION entry_appends() SET search_path = pg_catalog"},
      {"CREATE TABLE more () INHERITS (entry)", "DROP TABLE more"},
      {"GRANT UPDATE ON entry TO hushgrad_writer", "REVOKE UPDATE ON entry FROM hushgrad_writer"},
      {"GRANT TRUNCATE ON entry TO PUBLIC", "REVOKE TRUNCATE ON entry FROM PUBLIC"},
  };
  const auto ledger = Ledger::open(path_);
  const std::string run = begin(*ledger);
  for (const auto& [weaken, mend] : weakened) {
    ledger->charge(run, kStep);
    ASSERT_TRUE(try_sql(weaken)) << server().log();
    const auto other = Ledger::open(path_);
    EXPECT_FALSE(other->verify().ok) << weaken;
    EXPECT_THROW(other->charge(run, kStep), LedgerError) << weaken;
    ASSERT_TRUE(try_sql(mend)) << server().log();
  }
  EXPECT_TRUE(Ledger::open(path_)->verify().ok) << Ledger::open(path_)->verify().reason;
}

TEST_P(PostgresLedger, NothingLeavesThisMachineWithoutTlsThatIsChecked) {
  for (const char* address : {"postgresql://127.db.example/x", "postgresql://127.0.0.1,db.example/x", "postgresql://user:secret@db.example/x", "postgresql://db.example/x?sslmode=require",
                              "postgresql:///x?host=localhost,db.example", "postgresql://localhost/x?hostaddr=192.0.2.1"}) {
    try {
      Ledger::open(address);
      ADD_FAILURE() << address;
    } catch (const LedgerError& error) {
      EXPECT_NE(std::string(error.what()).find("verify-full"), std::string::npos) << error.what();
      EXPECT_EQ(std::string(error.what()).find("secret"), std::string::npos);
    }
  }
  EXPECT_EQ(Ledger::open(path_)->path().find("postgres@"), std::string::npos);
}

}  // namespace
}  // namespace hushgrad
