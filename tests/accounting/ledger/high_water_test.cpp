// A ledger that was put back: noticed by what this user has seen, and by heads kept elsewhere.
#include "accounting/ledger/high_water.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "accounting/ledger/ledger.h"
#include "accounting/ledger/state_folder.h"
#include "accounting/ledger/temporary_folder.h"
#include "dpcore/error.h"

namespace hushgrad {
namespace {

namespace fs = std::filesystem;
using ledger_test::StateFolder;
using ledger_test::TemporaryFolder;

const Event kStep = Event::gaussian(20);

class PutBack : public testing::Test {
 protected:
  PutBack() {
    const auto ledger = Ledger::open(path_);
    run_ = ledger->begin_run({"mimic", "", "", ""});
    ledger->charge(run_, kStep);
    fs::copy_file(path_, folder_ / "backup");
    ledger->charge(run_, kStep);
    newest_ = ledger->head();
  }
  void put_back() { fs::copy_file(folder_ / "backup", path_, fs::copy_options::overwrite_existing); }
  void forget() { fs::remove_all(folder_ / "state"); }

  TemporaryFolder folder_;
  StateFolder state_{folder_ / "state"};
  std::string path_ = folder_ / "l.db", run_;
  LedgerHead newest_;
};

TEST_F(PutBack, TakesNoChargeButCanBeRead) {
  put_back();
  const auto ledger = Ledger::open(path_);
  EXPECT_EQ(ledger->run(run_).steps, 1);
  ASSERT_EQ(ledger->missing().size(), 1u);
  EXPECT_EQ(ledger->missing()[0].hash, newest_.hash);
  EXPECT_THROW(ledger->charge(run_, kStep), LedgerError);
  EXPECT_THROW(ledger->charge_step(run_, kStep), LedgerError);
  EXPECT_THROW(ledger->begin_run({"mimic", "", "", ""}), LedgerError);
  EXPECT_THROW(ledger->set_budget("mimic", 1, 1e-5), LedgerError);
  EXPECT_THROW(Ledger::open(path_)->charge(run_, kStep), LedgerError);  // it is not forgotten by asking again
  EXPECT_FALSE(Ledger::open(path_)->verify().ok);
  EXPECT_EQ(ledger->verify().first_bad, newest_.sequence) << ledger->verify().reason;
  EXPECT_EQ(ledger->run(run_).steps, 1);
}

TEST_F(PutBack, TheNewestCopyIsAllThatIsNeeded) {
  fs::copy_file(path_, folder_ / "newest");
  put_back();
  EXPECT_THROW(Ledger::open(path_)->charge(run_, kStep), LedgerError);
  fs::copy_file(folder_ / "newest", path_, fs::copy_options::overwrite_existing);
  EXPECT_NO_THROW(Ledger::open(path_)->charge(run_, kStep));
}

TEST_F(PutBack, TwoPeopleCanAcceptTheLoss) {
  put_back();
  const auto ledger = Ledger::open(path_);
  EXPECT_THROW(ledger->repair("ada", "ada", "disk died"), InvalidArgument);
  EXPECT_THROW(ledger->repair("ada", "", "disk died"), InvalidArgument);
  EXPECT_THROW(ledger->charge(run_, kStep), LedgerError);
  ledger->repair("ada", "bob", "disk died");
  EXPECT_NO_THROW(ledger->charge(run_, kStep));
  EXPECT_TRUE(ledger->missing().empty());
  EXPECT_THROW(ledger->repair("ada", "bob", "again"), InvalidState);
  EXPECT_NO_THROW(Ledger::open(path_)->charge(run_, kStep));
  EXPECT_EQ(ledger->records("repair").at(0).fields.at("hash"), newest_.hash);
  EXPECT_TRUE(ledger->verify().ok);
}

TEST_F(PutBack, AHeadKeptElsewhereTellsWhoeverHasNotSeenIt) {
  put_back();
  forget();
  const auto ledger = Ledger::open(path_);
  EXPECT_NO_THROW(ledger->charge(run_, kStep));  // nothing here knows better, and another branch begins
  EXPECT_TRUE(ledger->expect(ledger->head()));
  EXPECT_FALSE(ledger->expect(newest_));
  EXPECT_THROW(ledger->charge(run_, kStep), LedgerError);
  ledger->repair("ada", "bob", "restored from backup");
  EXPECT_TRUE(ledger->expect(newest_));
  EXPECT_NO_THROW(ledger->charge(run_, kStep));
}

TEST_F(PutBack, ACopyThatIsUsedBesideTheLedgerIsNoticedByEither) {
  fs::copy_file(path_, folder_ / "copy.db");
  const auto ledger = Ledger::open(path_), copy = Ledger::open(folder_ / "copy.db");
  ledger->charge(run_, kStep);
  EXPECT_THROW(copy->charge(run_, kStep), LedgerError) << "it was open before, and is the past now";
  EXPECT_THROW(copy->charge_step(run_, kStep), LedgerError);
  EXPECT_THROW(Ledger::open(folder_ / "copy.db")->charge(run_, kStep), LedgerError);
  EXPECT_EQ(copy->missing().size(), 1u);
  EXPECT_NO_THROW(ledger->charge(run_, kStep));
}

TEST_F(PutBack, TheMarkOnlyRisesUnlessItWasGivenUp) {
  const ledger::HighWater mark(std::string(32, 'b'));
  mark.remember({9, std::string(96, 'c')});
  mark.remember({8, std::string(96, 'd')});  // of a process that committed first and comes last
  EXPECT_EQ(mark.seen()->sequence, 9);
  mark.remember({8, std::string(96, 'd')}, {std::string(96, 'c')});
  EXPECT_EQ(mark.seen()->sequence, 8);
}

TEST_F(PutBack, NowhereToRememberIsNoError) {
  const StateFolder nowhere_at_all("/proc/nothing");
  EXPECT_NO_THROW(Ledger::open(path_)->charge(run_, kStep));
  const ledger::HighWater nowhere(std::string(32, 'a'));
  nowhere.remember({3, "ab"});
  EXPECT_FALSE(nowhere.seen());
}

TEST_F(PutBack, WhatCannotBeReadIsNotRemembered) {
  const ledger::HighWater mark(std::string(32, 'a'));
  EXPECT_FALSE(mark.seen());
  mark.remember({3, std::string(96, 'b')});
  EXPECT_EQ(mark.seen()->sequence, 3);
  for (const auto& file : fs::directory_iterator(folder_ / "state/ledgers")) std::ofstream(file.path()) << "x";
  EXPECT_FALSE(mark.seen());
  EXPECT_NO_THROW(Ledger::open(path_)->charge(run_, kStep));
}

}  // namespace
}  // namespace hushgrad
