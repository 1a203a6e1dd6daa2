// kill -9 at random moments: every charge that was acknowledged is in the ledger afterwards.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <random>
#include <thread>

#include "accounting/ledger/ledger.h"
#include "accounting/ledger/temporary_folder.h"
#include "dpcore/error.h"

namespace hushgrad {
namespace {

using ledger_test::TemporaryFolder;

const Event kStep = Event::gaussian(50);

// Charges until it is killed; one byte into the pipe for each charge that returned.
[[noreturn]] void charge_for_ever(const std::string& path, const std::string& run, int acknowledge) {
  try {
    const auto ledger = Ledger::open(path, false);
    while (true) {
      ledger->charge(run, kStep);
      if (write(acknowledge, "+", 1) != 1) _exit(2);
    }
  } catch (const Error&) {
  }
  _exit(3);
}

std::int64_t drain(int descriptor) {
  std::int64_t count = 0;
  char buffer[256];
  for (ssize_t got; (got = read(descriptor, buffer, sizeof buffer)) > 0;) count += got;
  return count;
}

TEST(LedgerCrash, NoAcknowledgedChargeIsEverLost) {
  const char* asked = std::getenv("HUSHGRAD_LEDGER_KILLS");  // a longer run by hand
  const int kills = asked ? std::atoi(asked) : 60;
  const TemporaryFolder folder;
  const std::string path = folder / "l.db";
  const std::string run = Ledger::open(path)->begin_run({"mimic", "", "", ""});
  std::mt19937 random(std::random_device{}());
  std::int64_t acknowledged = 0, unacknowledged = 0;
  for (int kill_number = 0; kill_number < kills; ++kill_number) {
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      close(ends[0]);
      charge_for_ever(path, run, ends[1]);
    }
    close(ends[1]);
    char first = 0;
    ASSERT_EQ(read(ends[0], &first, 1), 1) << "the child could not charge";
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 25'000));
    kill(child, SIGKILL);
    int status = 0;
    waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the child stopped by itself";
    acknowledged += 1 + drain(ends[0]);
    close(ends[0]);

    const auto ledger = Ledger::open(path, false);
    const std::int64_t recorded = ledger->run(run).steps;  // replays and checks the whole chain
    ASSERT_GE(recorded, acknowledged + unacknowledged) << "budget was given back at kill " << kill_number;
    ASSERT_LE(recorded, acknowledged + unacknowledged + 1) << "more than the step in flight at kill " << kill_number;
    unacknowledged = recorded - acknowledged;
  }
  const VerifyResult verdict = Ledger::open(path)->verify();
  EXPECT_TRUE(verdict.ok) << verdict.reason;
  std::printf("%d kills, %lld charges acknowledged, %lld in flight were kept\n", kills,
              static_cast<long long>(acknowledged), static_cast<long long>(unacknowledged));
}

}  // namespace
}  // namespace hushgrad
