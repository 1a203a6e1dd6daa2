// What the ledger knows of a dataset decides what may be spent on it: lineage, purposes, retention, caps on parts.
#include "accounting/ledger/dataset_info.h"

#include <gtest/gtest.h>

#include <chrono>

#include "accounting/accountants/accountant.h"
#include "accounting/calibrate.h"
#include "accounting/ledger/ledger.h"
#include "accounting/ledger/raw_sqlite.h"
#include "accounting/ledger/temporary_folder.h"
#include "dpcore/error.h"

namespace hushgrad {
namespace {

using ledger_test::TemporaryFolder;

constexpr double kDelta = 1e-5;
const Event kStep = Event::gaussian(20);

DatasetInfo described(const std::string& name, std::vector<std::string> parents = {}) {
  DatasetInfo info;
  info.dataset = name;
  info.unit = "patient";
  info.adjacency = "add_or_remove_one";
  info.parents = std::move(parents);
  return info;
}

class DatasetLedger : public testing::Test {
 protected:
  std::string begin(const std::string& dataset, const std::string& purpose = "", const std::string& actor = "") {
    return ledger_->begin_run({dataset, purpose, actor, ""});
  }
  std::int64_t charge_until_refused(const std::string& run) {
    for (std::int64_t taken = 0;; ++taken) {
      try {
        ledger_->charge(run, kStep);
      } catch (const BudgetExceeded&) {
        return taken;
      }
    }
  }
  std::int64_t fits(double epsilon) const { return affordable_steps(Event::composed({}), kStep, epsilon, kDelta); }
  void expect_sound() {
    EXPECT_TRUE(ledger_->verify().ok) << ledger_->verify().reason;
    const auto again = Ledger::open(path_);
    for (const std::string& name : ledger_->datasets()) {
      EXPECT_EQ(again->dataset_history(name), ledger_->dataset_history(name)) << name;
    }
  }

  TemporaryFolder folder_;
  std::string path_ = folder_ / "l.db";
  std::shared_ptr<Ledger> ledger_ = Ledger::open(path_);
};

TEST_F(DatasetLedger, WhatADerivedDatasetSpendsItsAncestorsSpend) {
  for (const auto& [name, parents] : std::vector<std::pair<std::string, std::vector<std::string>>>{
           {"raw", {}}, {"other", {}}, {"cleaned", {"raw"}}, {"joined", {"cleaned", "other"}}}) {
    ledger_->describe_dataset(described(name, parents));
  }
  const std::string on_raw = begin("raw"), on_joined = begin("joined");
  ledger_->charge(on_raw, kStep);
  ledger_->charge(on_joined, kStep);
  ledger_->charge_step(on_joined, kStep);
  const auto steps = [&](const std::string& name) { return ledger_->steps(name).size(); };
  EXPECT_EQ(steps("raw"), 3u);
  EXPECT_EQ(steps("cleaned"), 2u);
  EXPECT_EQ(steps("joined"), 2u);
  EXPECT_EQ(steps("other"), 2u);
  EXPECT_EQ(ledger_->dataset_history("raw"), Event::composed({Event::self_composed(kStep, 3)}));
  EXPECT_EQ(ledger_->dataset_history("cleaned"), Event::composed({Event::self_composed(kStep, 2)}));
  EXPECT_EQ(ledger_->dataset_info("joined")->parents, (std::vector<std::string>{"cleaned", "other"}));
  expect_sound();
}

TEST_F(DatasetLedger, TheCapOfAnAncestorHoldsForEveryDescendant) {
  ledger_->describe_dataset(described("raw"));
  ledger_->describe_dataset(described("a", {"raw"}));
  ledger_->describe_dataset(described("b", {"raw"}));
  ledger_->set_budget("raw", 1.0, kDelta);
  ledger_->set_budget("a", 0.5, kDelta);
  const std::int64_t of_a = charge_until_refused(begin("a"));
  const std::int64_t of_b = charge_until_refused(begin("b"));
  EXPECT_EQ(of_a, fits(0.5));
  EXPECT_EQ(of_a + of_b, fits(1.0));
  EXPECT_LE(ledger_->spent("raw", kDelta).upper, 1.0);
  expect_sound();
}

// A script that wants budget back: describe the parent later, or drop it, or rename.
TEST_F(DatasetLedger, AParentThatIsNamedLateCountsWhatWasSpentBefore) {
  const std::string run = begin("copy");
  ledger_->charge(run, kStep);
  ledger_->describe_dataset(described("raw"));
  ledger_->set_budget("raw", 1.0, kDelta);
  ledger_->describe_dataset(described("copy", {"raw"}));
  EXPECT_EQ(ledger_->steps("raw").size(), 1u);
  EXPECT_EQ(1 + charge_until_refused(run), fits(1.0));
  EXPECT_THROW(ledger_->describe_dataset(described("copy")), InvalidArgument);
  EXPECT_THROW(ledger_->describe_dataset(described("raw", {"copy"})), InvalidArgument);
  EXPECT_THROW(ledger_->describe_dataset(described("raw", {"raw"})), InvalidArgument);
  EXPECT_THROW(ledger_->describe_dataset(described("new", {"unknown"})), InvalidArgument);
  EXPECT_EQ(ledger_->spent("unknown", kDelta).upper, 0);
  expect_sound();
}

TEST_F(DatasetLedger, CapsOnPartsHoldBesideTheCapOnAll) {
  ledger_->set_budget("ward", 1.0, kDelta);
  ledger_->set_budget({.dataset = "ward", .epsilon = 0.4, .delta = kDelta, .purpose = "triage"});
  ledger_->charge(begin("ward", "triage", "team b"), kStep);
  ledger_->set_budget({.dataset = "ward", .epsilon = 0.6, .delta = kDelta, .actor = "team a", .warning = 0.5});
  const std::int64_t triage = charge_until_refused(begin("ward", "triage", "team a"));
  EXPECT_EQ(1 + triage, fits(0.4));
  const std::int64_t rest_of_a = charge_until_refused(begin("ward", "research", "team a"));
  EXPECT_EQ(triage + rest_of_a, fits(0.6));
  const std::int64_t others = charge_until_refused(begin("ward", "research", "team b"));
  EXPECT_EQ(1 + triage + rest_of_a + others, fits(1.0));
  const auto budgets = ledger_->budgets("ward");
  ASSERT_EQ(budgets.size(), 3u);
  EXPECT_EQ(budgets[0].purpose + budgets[0].actor, "");
  EXPECT_EQ(budgets[1].purpose, "triage");
  EXPECT_EQ(budgets[2].warning, 0.5);
  expect_sound();
}

TEST_F(DatasetLedger, OnlyTheListedPurposesMayUseIt) {
  DatasetInfo info = described("ward");
  const std::string before = begin("ward", "marketing");
  info.purposes = {"triage", "audit"};
  ledger_->describe_dataset(info);
  EXPECT_THROW(begin("ward", "marketing"), InvalidState);
  EXPECT_THROW(begin("ward"), InvalidState);
  EXPECT_THROW(begin("ward", "Triage"), InvalidState);
  EXPECT_THROW(ledger_->charge(before, kStep), InvalidState);
  EXPECT_THROW(ledger_->charge_step(before, kStep), InvalidState);
  EXPECT_NO_THROW(ledger_->charge(begin("ward", "triage"), kStep));
  const auto audit = ledger_->records("audit");
  ASSERT_EQ(audit.size(), 5u);
  EXPECT_EQ(audit[0].fields.at("decision"), "denied");
  EXPECT_EQ(audit[0].fields.at("subject"), "ward");
  EXPECT_EQ(ledger_->steps("ward").size(), 1u);
  expect_sound();
}

std::int64_t now() {
  return std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

TEST_F(DatasetLedger, NothingIsSpentAfterTheRetentionTime) {
  DatasetInfo info = described("ward");
  const std::string run = begin("ward");
  info.retention = now() + 3'600'000'000;
  ledger_->describe_dataset(info);
  EXPECT_NO_THROW(ledger_->charge(run, kStep));
  info.retention = now();
  ledger_->describe_dataset(info);
  EXPECT_THROW(ledger_->charge(run, kStep), InvalidState);
  EXPECT_THROW(begin("ward"), InvalidState);
}

TEST_F(DatasetLedger, RecordsAreKeptAsGivenAndOnlyThose) {
  const LedgerRecord release{"release", {{"actor", "ada"}, {"artifact", "model.pt"}, {"digest", "ab"}, {"run", "x"}}};
  const std::int64_t sequence = ledger_->record(release);
  const LedgerRecord policy{"policy", {{"actor", "ada"}, {"digest", "cd"}, {"policy", R"({"a":1})"}, {"version", "2"}}};
  ledger_->record(policy);
  ASSERT_EQ(ledger_->records().size(), 2u);
  EXPECT_EQ(ledger_->records("release").at(0).fields, release.fields);
  EXPECT_EQ(ledger_->records("release").at(0).sequence, sequence);
  LedgerRecord wrong = release;
  wrong.fields.erase("run");
  EXPECT_THROW(ledger_->record(wrong), InvalidArgument);
  wrong.fields = release.fields;
  wrong.fields["more"] = "";
  EXPECT_THROW(ledger_->record(wrong), InvalidArgument);
  EXPECT_THROW(ledger_->record({"charge", {{"event", "3"}}}), InvalidArgument);
  EXPECT_THROW(ledger_->record({"repair", {{"first", "ada"}, {"second", "ada"}, {"hash", ""}, {"reason", ""}, {"sequence", "1"}}}),
               InvalidArgument);
  EXPECT_EQ(ledger_->records().size(), 2u);
  expect_sound();
}

}  // namespace
}  // namespace hushgrad
