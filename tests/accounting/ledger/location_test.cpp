#include "accounting/ledger/location.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "accounting/ledger/ledger.h"
#include "accounting/ledger/raw_sqlite.h"
#include "accounting/ledger/state_folder.h"
#include "accounting/ledger/temporary_folder.h"
#include "dpcore/error.h"

namespace hushgrad::ledger {
namespace {

namespace fs = std::filesystem;
using ledger_test::TemporaryFolder;

std::string contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST(LedgerLocation, ANewLedgerIsForItsOwnerOnlyAndLeavesNothingBeside) {
  const TemporaryFolder folder;
  hushgrad::Ledger::open(folder / "l.db");
  struct stat status{};
  ASSERT_EQ(stat((folder / "l.db").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), {}), 1);
}

TEST(LedgerLocation, AMissingFileIsAnErrorWhenNotAskedFor) {
  const TemporaryFolder folder;
  EXPECT_THROW(hushgrad::Ledger::open(folder / "l.db", false), LedgerError);
  EXPECT_FALSE(fs::exists(folder / "l.db"));
}

TEST(LedgerLocation, PathsThatAreNoFilesAreRefused) {
  const TemporaryFolder folder;
  EXPECT_THROW(hushgrad::Ledger::open(""), InvalidArgument);
  EXPECT_THROW(hushgrad::Ledger::open(std::string("a\0b", 3)), InvalidArgument);
  EXPECT_THROW(hushgrad::Ledger::open(folder / ""), InvalidArgument);
  EXPECT_THROW(hushgrad::Ledger::open(folder.path().string()), LedgerError);
  EXPECT_THROW(hushgrad::Ledger::open(folder / "none/l.db"), IoError);
  EXPECT_THROW(hushgrad::Ledger::open("/dev/null"), LedgerError);
}

TEST(LedgerLocation, LinksAreRefusedAndTheirTargetsStayAsTheyAre) {
  const TemporaryFolder folder;
  hushgrad::Ledger::open(folder / "l.db");
  const std::string before = contents(folder / "l.db");
  fs::create_symlink(folder / "l.db", folder / "link.db");
  fs::create_symlink(folder / "nowhere.db", folder / "dangling.db");
  EXPECT_THROW(hushgrad::Ledger::open(folder / "link.db"), LedgerError);
  EXPECT_THROW(hushgrad::Ledger::open(folder / "dangling.db"), LedgerError);
  EXPECT_FALSE(fs::exists(folder / "nowhere.db"));
  fs::create_hard_link(folder / "l.db", folder / "hard.db");
  EXPECT_THROW(hushgrad::Ledger::open(folder / "hard.db"), LedgerError);
  EXPECT_THROW(hushgrad::Ledger::open(folder / "l.db"), LedgerError);
  EXPECT_EQ(contents(folder / "l.db"), before);
}

TEST(LedgerLocation, LinkedFoldersAreResolved) {
  const TemporaryFolder folder;
  fs::create_directory(folder / "real");
  fs::create_directory_symlink(folder / "real", folder / "alias");
  const auto ledger = hushgrad::Ledger::open(folder / "alias/l.db");
  EXPECT_EQ(ledger->path(), fs::canonical(folder / "real/l.db").string());
}

TEST(LedgerLocation, OtherFilesAreRefusedAndStayAsTheyAre) {
  const TemporaryFolder folder;
  const std::string text(5'000, 'x');
  std::ofstream(folder / "text") << text;
  EXPECT_THROW(hushgrad::Ledger::open(folder / "text"), LedgerError);
  EXPECT_EQ(contents(folder / "text"), text);
  ledger_test::run_sql(folder / "other.db", "CREATE TABLE t (x)");
  const std::string before = contents(folder / "other.db");
  EXPECT_THROW(hushgrad::Ledger::open(folder / "other.db"), LedgerError);
  EXPECT_EQ(contents(folder / "other.db"), before);
}

TEST(LedgerLocation, AnEmptyFileIsALostLedgerNotANewOne) {
  const TemporaryFolder folder;
  hushgrad::Ledger::open(folder / "l.db");
  fs::resize_file(folder / "l.db", 0);
  try {
    hushgrad::Ledger::open(folder / "l.db");
    FAIL();
  } catch (const LedgerError& error) {
    EXPECT_NE(std::string(error.what()).find("restore a copy"), std::string::npos) << error.what();
  }
  EXPECT_EQ(fs::file_size(folder / "l.db"), 0u);
}

TEST(LedgerLocation, ANewerSchemaIsRefused) {
  const TemporaryFolder folder;
  hushgrad::Ledger::open(folder / "l.db");
  ledger_test::run_sql(folder / "l.db", "PRAGMA user_version = 99");
  EXPECT_THROW(hushgrad::Ledger::open(folder / "l.db"), LedgerError);
}

TEST(LedgerLocation, AJournalLeftByAMovedLedgerIsNotAppliedToANewOne) {
  const TemporaryFolder folder;
  std::ofstream(folder / "l.db-journal") << "left over";
  EXPECT_THROW(hushgrad::Ledger::open(folder / "l.db"), LedgerError);
  EXPECT_FALSE(fs::exists(folder / "l.db"));
}

TEST(LedgerLocation, AReplacedFileIsNoticedBeforeAnythingIsCharged) {
  const TemporaryFolder folder;
  const auto ledger = hushgrad::Ledger::open(folder / "l.db");
  const std::string run = ledger->begin_run({"d", "", "", ""});
  fs::copy_file(folder / "l.db", folder / "copy.db");
  fs::rename(folder / "copy.db", folder / "l.db");
  EXPECT_THROW(ledger->charge(run, Event::gaussian(1)), LedgerError);
  EXPECT_THROW(ledger->head(), LedgerError);
  fs::remove(folder / "l.db");
  EXPECT_THROW(ledger->charge(run, Event::gaussian(1)), LedgerError);
  EXPECT_THROW(ledger->verify(), LedgerError);
}

TEST(LedgerLocation, AnOlderCopyPutInPlaceOfTheContentIsNoticed) {
  const TemporaryFolder folder;
  const auto ledger = hushgrad::Ledger::open(folder / "l.db");
  const std::string run = ledger->begin_run({"d", "", "", ""});
  const std::string old = contents(folder / "l.db");
  ledger->charge(run, Event::gaussian(1));
  std::fstream(folder / "l.db", std::ios::in | std::ios::out | std::ios::binary) << old;  // same file, older bytes
  fs::resize_file(folder / "l.db", old.size());
  EXPECT_THROW(ledger->charge(run, Event::gaussian(1)), LedgerError);
  EXPECT_FALSE(ledger->verify().ok);
}

TEST(LedgerLocation, AnotherHistoryOfTheSameLengthIsNoticed) {
  const TemporaryFolder folder;
  const auto ledger = hushgrad::Ledger::open(folder / "l.db");
  const std::string run = ledger->begin_run({"d", "", "", ""});
  ledger->charge(run, Event::gaussian(1));
  fs::copy_file(folder / "l.db", folder / "other.db");
  ledger->charge(run, Event::gaussian(1));
  {
    const ledger_test::StateFolder somebody_else(folder / "state");
    const auto other = hushgrad::Ledger::open(folder / "other.db");
    other->charge(run, Event::gaussian(1));  // same content, another time: another hash
    ASSERT_EQ(other->head().sequence, ledger->head().sequence);
    ASSERT_NE(other->head().hash, ledger->head().hash);
  }
  std::fstream(folder / "l.db", std::ios::in | std::ios::out | std::ios::binary) << contents(folder / "other.db");
  EXPECT_THROW(ledger->charge(run, Event::gaussian(1)), LedgerError);
  const VerifyResult verdict = ledger->verify();
  EXPECT_FALSE(verdict.ok);
  EXPECT_EQ(verdict.first_bad, hushgrad::Ledger::open(folder / "other.db")->head().sequence);
  const auto again = hushgrad::Ledger::open(folder / "l.db")->verify();
  EXPECT_EQ(again.first_bad, verdict.first_bad) << "this user has seen another: " << again.reason;
  const ledger_test::StateFolder stranger(folder / "stranger");
  EXPECT_TRUE(hushgrad::Ledger::open(folder / "l.db")->verify().ok) << "by itself it is a ledger like any other";
}

TEST(LedgerLocation, MemoryFileSystemsAreNotDurable) {
  if (!fs::exists("/dev/shm")) GTEST_SKIP() << "no /dev/shm here, so no tmpfs to ask";
  EXPECT_FALSE(locate("/dev/shm/l.db").durable);
}

// The f_type numbers of statfs(2).
TEST(LedgerLocation, NetworkAndUserSpaceFileSystemsAreKnown) {
  EXPECT_STREQ(remote_file_system(0x6969), "NFS");
  EXPECT_STREQ(remote_file_system(0xff534d42), "CIFS");
  EXPECT_STREQ(remote_file_system(0xfe534d42), "SMB 2");
  EXPECT_STREQ(remote_file_system(0x01021997), "9P");
  EXPECT_STREQ(remote_file_system(0x65735546), "FUSE");
  for (std::uint32_t local : {0xef53u, 0x58465342u, 0x9123683eu, 0x794c7630u, 0x01021994u}) {  // ext4 xfs btrfs overlay tmpfs
    EXPECT_EQ(remote_file_system(local), nullptr);
  }
}

}  // namespace
}  // namespace hushgrad::ledger
