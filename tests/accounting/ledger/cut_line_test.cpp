// The line to a PostgreSQL server is cut before, within and after every single message of a ledger's life, of both sides. What
// returned is there, what was taken is spent, nothing is given back, and whoever opens the ledger next can read it.
#include <gtest/gtest.h>

#include <cstdlib>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "accounting/ledger/cutting_proxy.h"
#include "accounting/ledger/engines.h"
#include "accounting/ledger/state_folder.h"

namespace hushgrad {
namespace {

using ledger_test::Cut;
using ledger_test::CuttingProxy;
using ledger_test::server;

const Event kStep = Event::gaussian(50);
constexpr double kDelta = 1e-5;

// One training through a line that is cut somewhere. Every call returns, or throws LedgerError and may have happened.
class Life {
 public:
  explicit Life(std::string address) : address_(std::move(address)) {}

  void go() {
    // A client that cannot come in tries again; the line is cut once.
    for (int tries = 0; tries < 2 && !ledger_; ++tries) {
      returns([&] { ledger_ = Ledger::open(address_, false); });
    }
    for (int tries = 0; tries < 2 && run.empty(); ++tries) {
      returns([&] { run = ledger_->begin_run({"mimic", "", "", ""}); });
    }
    if (run.empty()) return;
    for (int i = 0; i < 4; ++i) step([&] { ledger_->charge_step(run, kStep); });  // blocks of 1, 2 and 4 steps
    step([&] { ledger_->charge(run, kStep); });
    if (returns([&] { ledger_->set_budget("mimic", 2, kDelta); })) cap = 2;
    if (returns([&] { ledger_->settle(); })) settled = true;
    step([&] { ledger_->charge_step(run, kStep); });
    finished = returns([&] { ledger_->finish_run(run, "completed"); });
    ledger_.reset();
  }

  std::string run;
  std::int64_t taken = 0;
  int failures = 0, charges_in_doubt = 0;
  bool settled = false, finished = false;
  double cap = 1;

 private:
  bool returns(const std::function<void()>& call) {
    try {
      call();
      return true;
    } catch (const LedgerError& error) {
      EXPECT_NE(std::string(error.what()).find("Expected"), std::string::npos) << error.what();
    }
    ++failures;
    return false;
  }
  void step(const std::function<void()>& call) {
    if (returns(call)) ++taken;
    else ++charges_in_doubt;
  }

  std::string address_;
  std::shared_ptr<Ledger> ledger_;
};

class CutLine : public ledger_test::OnBothEngines {
 protected:
  void SetUp() override {
    OnBothEngines::SetUp();
    if (IsSkipped()) return;
    std::string host;
    for (const char c : folder_.path().string()) host += c == '/' ? std::string("%2F") : std::string(1, c);
    through_ = "postgresql://postgres@" + host + "/" + database_;
  }

  // Founds the ledger anew, so that every life sends and gets the same messages.
  void found() {
    ASSERT_TRUE(server().sql(database_, "DROP SCHEMA IF EXISTS hushgrad CASCADE")) << server().log();
    Ledger::open(path_)->set_budget("mimic", 1, kDelta);
  }

  void expect_kept(const Life& life, const std::string& when) {
    const auto ledger = Ledger::open(path_, false);
    ledger->set_budget("another", 1, kDelta);  // waits for a backend that still commits what its client sent
    const VerifyResult verdict = ledger->verify();
    ASSERT_TRUE(verdict.ok) << when << ": " << verdict.reason;
    EXPECT_GE(ledger->budget("mimic")->epsilon, life.cap) << when;
    if (life.run.empty()) return;
    const RunRecord record = ledger->run(life.run);
    ASSERT_GE(record.steps, life.taken) << when << ": budget was given back";
    // More is spent only as far as it is reported, or by the one charge whose outcome nobody was told.
    EXPECT_LE(record.steps, life.taken + record.reserved + (life.charges_in_doubt > 0 ? 1 : 0)) << when;
    EXPECT_LE(record.steps, life.taken + 5) << when << ": more than one block";
    if (life.finished) EXPECT_EQ(record.status, "completed") << when;
    if (life.failures == 0) EXPECT_EQ(record.steps, life.taken) << when;
  }

  std::string through_;
};

INSTANTIATE_TEST_SUITE_P(Engine, CutLine, testing::Values(ledger_test::Engine::postgres), [](const auto&) { return "Postgres"; });

TEST_P(CutLine, BeforeWithinAndAfterEveryMessageGivesNothingBack) {
  const ledger_test::StateFolder state(folder_ / "state");
  found();
  std::int64_t messages = 0;
  {
    CuttingProxy proxy(folder_.path().string(), server().socket());
    Life whole(through_);
    whole.go();
    messages = proxy.messages;
    ASSERT_EQ(whole.failures, 0);
    ASSERT_EQ(whole.taken, 6);
    expect_kept(whole, "uncut");
  }
  ASSERT_GT(messages, 200);
  const char* asked = std::getenv("HUSHGRAD_LEDGER_EVERY");  // 1: every message, by hand
  const std::int64_t every = asked ? std::atoi(asked) : 31;
  int cuts = 0, lost = 0, in_doubt = 0;
  for (std::int64_t message = messages % every; message < messages; message += every) {
    for (const Cut how : {Cut::before, Cut::within, Cut::after}) {
      const std::string when = "message " + std::to_string(message) + ", " + (how == Cut::before ? "before" : how == Cut::within ? "within" : "after");
      found();
      Life life(through_);
      {
        CuttingProxy proxy(folder_.path().string(), server().socket());
        proxy.cut_at(message, how);
        life.go();
        ASSERT_EQ(proxy.cuts, 1) << when;
      }
      expect_kept(life, when);
      ++cuts;
      lost += life.failures > 0;
      in_doubt += life.charges_in_doubt > 0;
      if (HasFatalFailure()) return;
    }
  }
  EXPECT_GT(lost, cuts / 2) << "a cut is felt";
  std::printf("%lld messages, %d cuts: %d lives saw an error, %d of them at a step; 0 refunds, 0 unreadable\n", static_cast<long long>(messages), cuts, lost,
              in_doubt);
}

}  // namespace
}  // namespace hushgrad
