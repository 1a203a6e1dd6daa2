// Charges of one comparison are added up, charges of another are refused: users beside records, or another adjacency.
#include "accounting/ledger/neighbours.h"

#include <string>

#include "accounting/ledger/engines.h"

namespace hushgrad {
namespace {

using ledger::Neighbours;
using ledger::neighbours_of;
using ledger_test::Engine;

const Event kStep = Event::gaussian(20);
const std::string kUsers = R"({"unit":"user","adjacency":"add_or_remove_one"})", kRecords = R"({"adjacency":"add_or_remove_one"})",
                  kReplaced = R"({"adjacency":"replace_one"})";

TEST(Neighbours, AreReadFromThePlan) {
  EXPECT_EQ(neighbours_of("{}"), Neighbours{});
  EXPECT_EQ(neighbours_of(kRecords), (Neighbours{"record", "add_or_remove_one"}));
  EXPECT_EQ(neighbours_of(kUsers), (Neighbours{"user", "add_or_remove_one"}));
  EXPECT_EQ(neighbours_of(R"({"unit":null})"), Neighbours{});
  EXPECT_FALSE(agree(neighbours_of(R"({"unit":7})"), {})) << "what is not understood is not the same";
  EXPECT_TRUE(agree(neighbours_of("{}"), neighbours_of(kRecords)));
  EXPECT_FALSE(agree(neighbours_of("{}"), neighbours_of(kUsers)));
  EXPECT_FALSE(agree(neighbours_of(kReplaced), neighbours_of(kRecords)));
}

class NeighboursOnBothEngines : public ledger_test::OnBothEngines {
 protected:
  static std::string begin(Ledger& ledger, const std::string& plan, const std::string& dataset = "mimic") {
    return ledger.begin_run({dataset, "", "", plan});
  }
};

INSTANTIATE_TEST_SUITE_P(Each, NeighboursOnBothEngines, testing::Values(Engine::sqlite, Engine::postgres), ledger_test::engine_name);

TEST_P(NeighboursOnBothEngines, UsersAndRecordsAreNotAddedUp) {
  const auto ledger = Ledger::open(path_);
  const std::string records = begin(*ledger, kRecords), users = begin(*ledger, kUsers);
  ledger->charge(records, kStep);
  EXPECT_THROW(ledger->charge(users, kStep), InvalidState);
  EXPECT_THROW(ledger->charge_step(users, kStep), InvalidState);
  EXPECT_THROW(begin(*ledger, kUsers), InvalidState);
  EXPECT_THROW(begin(*ledger, kReplaced), InvalidState);
  ledger->charge(records, kStep);
  ledger->charge_step(records, kStep);
  const std::string elsewhere = begin(*ledger, kUsers, "mimic-by-user");
  ledger->charge(elsewhere, kStep);
  ledger->settle();
  EXPECT_EQ(ledger->steps("mimic").size(), 3u);
  EXPECT_EQ(ledger->run(users).steps, 0);
  EXPECT_TRUE(ledger->verify().ok) << ledger->verify().reason;
  ASSERT_FALSE(ledger->records("audit").empty());
  EXPECT_EQ(ledger->records("audit").back().fields.at("decision"), "denied");
}

TEST_P(NeighboursOnBothEngines, AnotherProcessSeesIt) {
  const auto one = Ledger::open(path_), other = Ledger::open(path_);
  const std::string records = begin(*one, kRecords), users = begin(*other, kUsers);
  other->charge_step(users, kStep);
  EXPECT_THROW(one->charge(records, kStep), InvalidState);
}

// A run that only began has released nothing.
TEST_P(NeighboursOnBothEngines, WhatWasNotSpentBindsNobody) {
  const auto ledger = Ledger::open(path_);
  const std::string users = begin(*ledger, kUsers), records = begin(*ledger, kRecords);
  EXPECT_NO_THROW(begin(*ledger, kReplaced));
  ledger->charge(records, kStep);
  EXPECT_THROW(ledger->charge(users, kStep), InvalidState);
}

TEST_P(NeighboursOnBothEngines, ChargesOfADerivedDatasetCount) {
  const auto ledger = Ledger::open(path_);
  const auto describe = [&](const std::string& dataset, std::vector<std::string> parents, const std::string& adjacency = "") {
    DatasetInfo info;
    info.dataset = dataset;
    info.parents = std::move(parents);
    info.adjacency = adjacency;
    ledger->describe_dataset(info);
  };
  describe("ward", {});
  describe("clean", {"ward"});
  ledger->charge(begin(*ledger, kUsers, "clean"), kStep);
  EXPECT_THROW(begin(*ledger, kRecords, "ward"), InvalidState);
  ledger->charge(begin(*ledger, kUsers, "ward"), kStep);
  ledger->charge(begin(*ledger, kRecords, "other"), kStep);
  EXPECT_THROW(describe("other", {"ward"}), InvalidState) << "a parent that is named late would add them up";
  EXPECT_THROW(describe("ward", {}, "replace_one"), InvalidState) << "what was charged is for add_or_remove_one";
  describe("ward", {}, "add_or_remove_one");
  describe("small", {"ward"});
  EXPECT_THROW(begin(*ledger, kRecords, "small"), InvalidState) << "the parent pays for it too";
  describe("swapped", {}, "replace_one");
  EXPECT_THROW(begin(*ledger, kRecords, "swapped"), InvalidState);
  ledger->charge(begin(*ledger, "", "swapped"), kStep);
  EXPECT_TRUE(ledger->verify().ok) << ledger->verify().reason;
}

}  // namespace
}  // namespace hushgrad
