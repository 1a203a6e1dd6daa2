// Edits behind the ledger's back: verify() names the first bad entry, and nothing can be charged any more.
#include "accounting/ledger/verify.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "accounting/ledger/ledger.h"
#include "accounting/ledger/raw_sqlite.h"
#include "accounting/ledger/state_folder.h"
#include "accounting/ledger/temporary_folder.h"
#include "dpcore/error.h"

namespace hushgrad {
namespace {

using ledger_test::edit_unguarded;
using ledger_test::TemporaryFolder;

// Entries: 1 genesis, 2 budget, 3 run, 4 event, 5 to 9 charges.
class Tampering : public testing::Test {
 protected:
  Tampering() : path_(folder_ / "l.db") {
    const auto ledger = Ledger::open(path_);
    ledger->set_budget("mimic", 3, 1e-5);
    run_ = ledger->begin_run({"mimic", "model", "ada", ""});
    for (int i = 0; i < 5; ++i) ledger->charge(run_, Event::gaussian(50));
  }

  void expect_bad(std::int64_t sequence, const std::string& what) {
    const auto ledger = Ledger::open(path_, false);
    const VerifyResult verdict = ledger->verify();
    EXPECT_FALSE(verdict.ok) << what;
    EXPECT_EQ(verdict.first_bad, sequence) << what << ": " << verdict.reason;
    EXPECT_FALSE(verdict.reason.empty()) << what;
    EXPECT_TRUE(sequence == 0 || verdict.entries == sequence - 1) << what;
    EXPECT_THROW(ledger->charge(run_, Event::gaussian(50)), LedgerError) << what;
    EXPECT_THROW(ledger->spent("mimic", 1e-5), LedgerError) << what;
    EXPECT_NO_THROW(ledger->entries()) << what;
  }

  TemporaryFolder folder_;
  std::string path_;
  std::string run_;
};

TEST_F(Tampering, AnUntouchedLedgerPasses) {
  edit_unguarded(path_, "SELECT 1");  // guards taken away and put back
  const VerifyResult verdict = Ledger::open(path_)->verify();
  EXPECT_TRUE(verdict.ok) << verdict.reason;
  EXPECT_EQ(verdict.entries, 9);
  EXPECT_EQ(verdict.first_bad, 0);
}

TEST_F(Tampering, AnEditedPayloadIsNamed) {
  edit_unguarded(path_, R"(UPDATE entry SET payload = '{"dataset":"mimic","delta":1e-05,"epsilon":9.0}' WHERE sequence = 2)");
  expect_bad(2, "budget");
}

TEST_F(Tampering, EveryColumnOfEveryEntryCounts) {
  const std::string clean = folder_ / "clean.db";
  std::filesystem::copy_file(path_, clean);
  for (int sequence = 1; sequence <= 9; ++sequence) {
    for (const char* set : {"time = time + 1", "kind = kind || ' '", "payload = payload || ' '",
                            "hash = zeroblob(48)", "previous = randomblob(48)"}) {
      std::filesystem::copy_file(clean, path_, std::filesystem::copy_options::overwrite_existing);
      const std::string where = std::to_string(sequence);
      edit_unguarded(path_, std::string("UPDATE entry SET ") + set + " WHERE sequence = " + where);
      const VerifyResult verdict = Ledger::open(path_)->verify();
      EXPECT_EQ(verdict.first_bad, sequence) << set << " at " << where << ": " << verdict.reason;
    }
  }
}

TEST_F(Tampering, ADroppedEntryIsNamed) {
  edit_unguarded(path_, "DELETE FROM entry WHERE sequence = 6");
  expect_bad(6, "dropped");
}

TEST_F(Tampering, ADroppedEntryIsNamedAlsoWhenTheOthersCloseRanks) {
  edit_unguarded(path_, "DELETE FROM entry WHERE sequence = 6; UPDATE entry SET sequence = sequence - 1 WHERE sequence > 6");
  expect_bad(6, "renumbered");
}

TEST_F(Tampering, TheFirstEntryCannotBeDropped) {
  edit_unguarded(path_, "DELETE FROM entry WHERE sequence = 1");
  expect_bad(1, "genesis");
}

TEST_F(Tampering, AnEmptiedLedgerIsNotANewOne) {
  edit_unguarded(path_, "DELETE FROM entry");
  expect_bad(1, "all");
}

TEST_F(Tampering, ReorderedEntriesAreNamed) {
  edit_unguarded(path_, "UPDATE entry SET sequence = 100 WHERE sequence = 3; UPDATE entry SET sequence = 3 WHERE sequence "
                        "= 7; UPDATE entry SET sequence = 7 WHERE sequence = 100");
  expect_bad(3, "swapped");
}

TEST_F(Tampering, ARepeatedEntryIsNamed) {
  edit_unguarded(path_, "INSERT INTO entry SELECT 10, time, kind, payload, previous, hash FROM entry WHERE sequence = 9");
  expect_bad(10, "repeated");
}

TEST_F(Tampering, AMissingGuardIsFound) {
  ledger_test::run_sql(path_, "DROP TRIGGER entry_is_kept");
  expect_bad(0, "guard");
}

TEST_F(Tampering, AForeignTriggerIsFound) {
  ledger_test::run_sql(path_, "CREATE TRIGGER x AFTER INSERT ON entry BEGIN SELECT 1; END");
  expect_bad(0, "trigger");
}

TEST_F(Tampering, AGuardThatDoesNothingIsFound) {
  ledger_test::run_sql(path_, "DROP TRIGGER entry_is_final; CREATE TRIGGER entry_is_final BEFORE UPDATE ON entry WHEN 0 "
                              "BEGIN SELECT 1; END");
  expect_bad(0, "weak guard");
}

TEST_F(Tampering, AForeignTriggerIsFoundByAHandleThatIsOpenAlready) {
  const auto ledger = Ledger::open(path_);
  ledger->charge(run_, Event::gaussian(50));
  ledger_test::run_sql(path_, "CREATE TRIGGER x AFTER INSERT ON entry BEGIN SELECT 1; END");
  EXPECT_THROW(ledger->charge(run_, Event::gaussian(50)), LedgerError);
}

TEST_F(Tampering, ALostTailIsFoundByAHandleThatIsOpenAlready) {
  const auto ledger = Ledger::open(path_);
  ASSERT_EQ(ledger->head().sequence, 9);
  edit_unguarded(path_, "DELETE FROM entry WHERE sequence = 9");
  const VerifyResult verdict = ledger->verify();
  EXPECT_EQ(verdict.first_bad, 9) << verdict.reason;
  EXPECT_THROW(ledger->charge(run_, Event::gaussian(50)), LedgerError);
}

TEST_F(Tampering, ALostTailIsFoundWithAHeadKeptElsewhere) {
  const LedgerHead head = Ledger::open(path_)->head();
  edit_unguarded(path_, "DELETE FROM entry WHERE sequence = 9");
  {
    const ledger_test::StateFolder stranger(folder_ / "stranger");
    const auto ledger = Ledger::open(path_);
    EXPECT_TRUE(ledger->verify().ok) << "a chain without a key cannot miss its own tail";
    EXPECT_FALSE(ledger->contains(head));
    EXPECT_FALSE(ledger->expect(head));
    EXPECT_EQ(ledger->verify().first_bad, 9) << "whoever was told knows";
  }
  EXPECT_EQ(Ledger::open(path_)->verify().first_bad, 9) << "and so does this user";
}

TEST_F(Tampering, DamagedBytesAreFound) {
  const auto size = std::filesystem::file_size(path_);
  int found = 0;
  for (std::uintmax_t page = 1; page < size / 4096; ++page) {
    const std::string copy = folder_ / ("damaged" + std::to_string(page));
    std::filesystem::copy_file(path_, copy);
    std::fstream file(copy, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(page * 4096 + 3'000));
    file << std::string(500, '\x5a');
    file.close();
    const VerifyResult verdict = Ledger::open(copy)->verify();
    EXPECT_FALSE(verdict.ok) << "page " << page;
    found += !verdict.ok;
  }
  EXPECT_GT(found, 0);
}

}  // namespace
}  // namespace hushgrad
