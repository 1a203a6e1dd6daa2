// Durability: what the disk holds when a charge has returned, whatever fails and whenever the power goes.
#include "accounting/ledger/session.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <optional>
#include <vector>

#include "accounting/ledger/database.h"
#include "accounting/ledger/faulty_vfs.h"
#include "accounting/ledger/ledger.h"
#include "accounting/ledger/state_folder.h"
#include "accounting/ledger/temporary_folder.h"
#include "dpcore/error.h"

namespace hushgrad {
namespace {

using ledger_test::FaultyVfs;
using ledger_test::TemporaryFolder;

const Event kStep = Event::gaussian(50);

std::string contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::int64_t charges_in(const std::string& path) {
  const ledger_test::StateFolder stranger(path + ".state");  // who has not seen what came later
  const auto ledger = Ledger::open(path, false);
  const VerifyResult verdict = ledger->verify();
  EXPECT_TRUE(verdict.ok) << verdict.reason;
  return static_cast<std::int64_t>(ledger->steps().size());
}

// A cut of the power before each single disk operation of several charges: every charge that had returned is there.
TEST(LedgerDurability, APowerCutAtAnyMomentLosesNoChargeThatReturned) {
  const TemporaryFolder folder;
  const std::string path = folder / "l.db";
  std::string run;
  {
    const auto ledger = Ledger::open(path);
    ledger->set_budget("mimic", 3, 1e-5);
    run = ledger->begin_run({"mimic", "", "", ""});
  }
  struct Moment {
    FaultyVfs::Files cut, killed;
    std::int64_t returned;
  };
  std::vector<Moment> moments;
  std::string opened_as;
  {
    FaultyVfs vfs;
    std::int64_t returned = 0;
    const auto ledger = Ledger::open(path);
    opened_as = ledger->path();
    vfs.remember(opened_as, contents(path));
    vfs.before_operation = [&] { moments.push_back({vfs.power_cut(), vfs.live(), returned}); };
    for (int i = 0; i < 5; ++i) {
      ledger->charge(run, kStep);
      ++returned;
      moments.push_back({vfs.power_cut(), vfs.live(), returned});
    }
    EXPECT_GE(vfs.syncs, 10);
  }
  ASSERT_GT(moments.size(), 40u);
  int number = 0;
  for (const Moment& moment : moments) {
    for (const FaultyVfs::Files* files : {&moment.cut, &moment.killed}) {
      const TemporaryFolder after;
      for (const auto& [name, bytes] : *files) {
        std::ofstream(after / std::filesystem::path(name).filename().string(), std::ios::binary) << bytes;
      }
      const std::int64_t kept = charges_in(after / "l.db");
      EXPECT_GE(kept, moment.returned) << "moment " << number;
      EXPECT_LE(kept, moment.returned + 1) << "moment " << number;
    }
    ++number;
  }
}

// Every disk operation of a charge fails once, alone or with all that follow.
TEST(LedgerDurability, AFailingDiskGivesATypedErrorAndNeverARefund) {
  for (const bool forever : {false, true}) {
    for (int operation = 0;; ++operation) {
      const TemporaryFolder folder;
      const std::string path = folder / "l.db";
      FaultyVfs vfs;
      std::int64_t returned = 0;
      bool reached = false;
      {
        const auto ledger = Ledger::open(path);
        const std::string run = ledger->begin_run({"mimic", "", "", ""});
        ledger->charge(run, kStep);
        ++returned;
        vfs.fail_at(operation, forever);
        vfs.failed = false;
        for (int i = 0; i < 3; ++i) {
          try {
            ledger->charge(run, kStep);
            ++returned;
          } catch (const LedgerError&) {
          }
        }
        reached = vfs.failed;
        vfs.heal();
      }
      const std::int64_t kept = charges_in(path);
      EXPECT_GE(kept, returned) << operation << forever;
      EXPECT_LE(kept, returned + 1) << operation << forever;
      if (!reached) break;
      ASSERT_LT(operation, 200) << "the fault never stopped being reached";
    }
  }
}

TEST(LedgerDurability, AfterAFailedSyncTheHandleNeverTriesAgain) {
  const TemporaryFolder folder;
  FaultyVfs vfs;
  const auto ledger = Ledger::open(folder / "l.db");
  const std::string run = ledger->begin_run({"mimic", "", "", ""});
  ledger->charge(run, kStep);
  // The first failing sync of a charge; a kernel reports such an error once and then says that all is well.
  std::optional<int> failing_sync;
  const int before = vfs.operations;
  int syncs_before = vfs.syncs;
  vfs.before_operation = [&] {
    if (!failing_sync && vfs.syncs > syncs_before) failing_sync = vfs.operations - before - 1;
  };
  ledger->charge(run, kStep);
  vfs.before_operation = nullptr;
  ASSERT_TRUE(failing_sync);
  vfs.fail_at(*failing_sync, false);
  const auto words = [](auto&& call) -> std::string {
    try {
      call();
    } catch (const LedgerError& error) {
      return error.what();
    }
    return "no error";
  };
  const std::string first = words([&] { ledger->charge(run, kStep); });
  EXPECT_NE(first.find("closed for good"), std::string::npos) << first;
  ASSERT_TRUE(vfs.failed);
  const int after = vfs.operations;
  EXPECT_EQ(words([&] { ledger->charge(run, kStep); }), first);
  EXPECT_EQ(words([&] { ledger->spent("mimic", 1e-5); }), first);
  EXPECT_EQ(vfs.operations, after) << "the handle touched the disk again";
}

TEST(LedgerDurability, AFullDiskWhileMakingALedgerLeavesNothingBehind) {
  int made = 0;
  for (int operation = 0; made == 0; ++operation) {
    const TemporaryFolder folder;
    FaultyVfs vfs;
    vfs.fail_at(operation, true);
    try {
      Ledger::open(folder / "l.db");
      if (!vfs.failed) ++made;
    } catch (const LedgerError&) {
      EXPECT_TRUE(std::filesystem::is_empty(folder.path())) << operation;
    }
    ASSERT_LT(operation, 200);
  }
}

TEST(LedgerDurability, TheConnectionIsSetUpAsDocumented) {
  const TemporaryFolder folder;
  Ledger::open(folder / "l.db");
  ledger::Database database(folder / "l.db");
  EXPECT_EQ(database.text("PRAGMA journal_mode"), "delete");
  EXPECT_EQ(database.integer("PRAGMA synchronous"), 3);  // EXTRA
  EXPECT_EQ(database.integer("PRAGMA mmap_size"), 0);
  EXPECT_EQ(database.integer("PRAGMA trusted_schema"), 0);
  EXPECT_EQ(database.integer("PRAGMA foreign_keys"), 1);
  EXPECT_GT(database.integer("PRAGMA busy_timeout"), 1'000);
}

}  // namespace
}  // namespace hushgrad
