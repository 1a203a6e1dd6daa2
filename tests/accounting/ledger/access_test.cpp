// Access rules as the ledger enforces them, on both engines.
#include <gtest/gtest.h>

#include <fstream>

#include "accounting/access/digest.h"
#include "accounting/access/run_approvals.h"
#include "accounting/ledger/cover.h"
#include "accounting/ledger/founded.h"
#include "accounting/ledger/payload.h"
#include "accounting/ledger/session.h"
#include "accounting/ledger/state_folder.h"

namespace hushgrad {
namespace {

using ledger_test::approved;
using ledger_test::Engine;
using ledger_test::in_seconds;
using ledger_test::Key;
using ledger_test::new_key;
using ledger_test::present;
using ledger_test::TemporaryFolder;

const Event kStep = Event::gaussian(20);
constexpr double kDelta = 1e-5;

class Access : public ledger_test::Founded {
 protected:
  std::string reason_of(const std::function<void()>& body) {
    const auto before = ledger_->records("audit").size();
    try {
      body();
    } catch (const Denied& denied) {
      EXPECT_EQ(ledger_->records("audit").size(), before + 1) << "a denial is on record";
      EXPECT_EQ(ledger_->records("audit").back().fields.at("decision"), "denied");
      return denied.reason();
    }
    return "";
  }
  static std::string policy(int version, const std::string& rules) {
    return ledger::canonical_plan(R"({"version": )" + std::to_string(version) + R"(, "rule": [)" + rules + "]}");
  }
  void publish(const std::string& text, const Key& signer) {
    const std::string signature = hex_of(signer->sign("policy", bytes_of(text)));
    as(Role::privacy_officer)->publish_policy(text, signer->public_key().id(), signature);
  }
};

TEST_P(Access, NothingWorksWithoutProof) {
  const std::string run = as(Role::trainer)->begin_run({"ward-7", "", "tom", "{}"});
  for (const Key& key : {Key(), people_.stranger}) {
    const auto ledger = as(key);
    EXPECT_NE(reason_of([&] { ledger->begin_run({"ward-7", "", "tom", "{}"}); }), "");
    EXPECT_NE(reason_of([&] { ledger->charge(run, kStep); }), "");
    EXPECT_NE(reason_of([&] { ledger->charge_step(run, kStep); }), "");
    EXPECT_NE(reason_of([&] { ledger->finish_run(run, "completed"); }), "");
    EXPECT_NE(reason_of([&] { ledger->set_budget({.dataset = "ward-7", .epsilon = 1, .delta = kDelta, .set_by = "olga"}); }), "");
    EXPECT_NE(reason_of([&] { ledger->describe_dataset({.dataset = "ward-7", .actor = "olga"}); }), "");
    EXPECT_NE(reason_of([&] { ledger->release({"model", "m", "00", run}); }), "");
    EXPECT_NE(reason_of([&] { ledger->record({"release", {{"actor", "tom"}, {"artifact", "m"}, {"digest", ""}, {"run", run}}}); }), "");
    EXPECT_NE(reason_of([&] { ledger->record({"approval", {{"action", "x"}, {"actor", "ann"}, {"reason", ""}, {"subject", ""}}}); }), "");
    EXPECT_NE(reason_of([&] { ledger->add_actor({"mallory", people_.stranger->public_key()}); }), "");
    EXPECT_NE(reason_of([&] { ledger->grant({.name = "tom", .role = Role::privacy_officer}); }), "");
    EXPECT_NE(reason_of([&] { ledger->revoke("actor:olga", ""); }), "");
    EXPECT_NE(reason_of([&] { ledger->authorise_export(); }), "");
    EXPECT_NE(reason_of([&] { ledger->move_to(folder_ / "stolen.db", "olga"); }), "");
    EXPECT_NE(reason_of([&] { ledger->break_glass({Action::export_model, "*", "because", 60}); }), "");
  }
  EXPECT_EQ(ledger_->run(run).steps, 0);
  EXPECT_TRUE(ledger_->budgets("ward-7").empty());
  EXPECT_TRUE(ledger_->records("release").empty());
  EXPECT_TRUE(ledger_->verify().ok) << ledger_->verify().reason;
}

TEST_P(Access, ATrainingIsProvenOnceAndOnRecord) {
  const auto ledger = as(Role::trainer);
  const std::string run = ledger->begin_run({"ward-7", "triage", "", "{}"});
  EXPECT_EQ(ledger->run(run).info.actor, "tom") << "the name of the key";
  const auto head = ledger->head().sequence;
  for (int i = 0; i < 10; ++i) ledger->charge(run, kStep);
  EXPECT_EQ(ledger->head().sequence, head + 11) << "one entry for the event, one a charge";
  ledger->finish_run(run, "completed");
  const auto decision = ledger->records("audit").back();
  EXPECT_EQ(decision.fields.at("actor"), "tom");
  EXPECT_EQ(decision.fields.at("action"), "finish");
  EXPECT_EQ(decision.fields.at("subject"), "ward-7");
  EXPECT_EQ(decision.fields.at("purpose"), "triage");
  EXPECT_EQ(decision.fields.at("key"), people_.trainer->public_key().id());
  EXPECT_EQ(decision.fields.at("host").size(), 16u);
}

TEST_P(Access, AnotherHandleProvesItselfBeforeItSpends) {
  const std::string run = as(Role::trainer)->begin_run({"ward-7", "", "", "{}"});
  const auto resumed = as(Role::trainer);
  resumed->charge(run, kStep);
  EXPECT_EQ(resumed->run(run).steps, 1);
  EXPECT_EQ(reason_of([&] { as(Role::privacy_officer)->charge(run, kStep); }), "no_proof") << "somebody else's run";
}

TEST_P(Access, NobodyActsForAnother) {
  EXPECT_EQ(reason_of([&] { as(Role::trainer)->begin_run({"ward-7", "", "olga", "{}"}); }), "no_proof");
  EXPECT_EQ(reason_of([&] { as(Role::privacy_officer)->set_budget({.dataset = "d", .epsilon = 1, .delta = kDelta, .set_by = "tom"}); }), "no_proof");
}

TEST_P(Access, ARevokedGrantEndsATrainingWithItsBlock) {
  const auto ledger = as(Role::trainer);
  ledger->limit_block(1);
  const std::string run = ledger->begin_run({"ward-7", "", "", "{}"});
  ledger->charge_step(run, kStep);
  std::int64_t which = 0;
  for (const Grant& grant : ledger_->access().grants) which = grant.name == "tom" ? grant.sequence : which;
  ledger_->revoke("grant:" + std::to_string(which), "left");
  EXPECT_EQ(reason_of([&] { ledger->charge_step(run, kStep); }), "revoked");
  EXPECT_EQ(ledger_->run(run).steps, 1);
}

TEST_P(Access, AGrantEndsByTheLargestTimeEverSeen) {
  ledger_->add_actor({"ned", people_.stranger->public_key()});
  ledger_->grant({.name = "ned", .role = Role::trainer, .expires = in_seconds(2)});
  const auto ledger = as(people_.stranger);
  const std::string run = ledger->begin_run({"ward-7", "", "", "{}"});
  // Somebody whose clock is an hour ahead writes an entry; the clock of this process has not moved.
  {
    ledger::Session session(path_, false);
    session.write([](ledger::State& state, ledger::Batch& batch) {
      state.time += 3'600'000'000;
      ledger::Batch ahead(state);
      batch = ahead;
      batch.append("audit", LedgerRecord{"audit", {{"action", "x"}, {"actor", ""}, {"decision", "denied"}, {"policy", ""}, {"reason", ""}, {"subject", ""}}});
      state.time -= 3'600'000'000;
    });
  }
  EXPECT_EQ(reason_of([&] { ledger->charge(run, kStep); }), "expired");
}

TEST_P(Access, RaisingABudgetTakesASecondPerson) {
  const auto officer = as(Role::privacy_officer);
  officer->set_budget({.dataset = "ward-7", .epsilon = 1, .delta = kDelta});
  officer->set_budget({.dataset = "ward-7", .epsilon = 0.5, .delta = kDelta});  // lower: alone
  const BudgetLimit more{.dataset = "ward-7", .epsilon = 3, .delta = kDelta};
  EXPECT_EQ(reason_of([&] { officer->set_budget(more); }), "too_few");
  const Proposal proposal = officer->proposal(more);
  EXPECT_EQ(proposal.action, Action::raise_budget);
  EXPECT_EQ(proposal.scope.at("epsilon"), "3.0");
  present(*officer, approved(proposal, people_.officer, people_.officer));
  EXPECT_EQ(reason_of([&] { officer->set_budget(more); }), "self_approval");
  const auto fresh = as(Role::privacy_officer);
  present(*fresh, approved(proposal, people_.officer, people_.trainer));
  EXPECT_EQ(reason_of([&] { fresh->set_budget(more); }), "unknown_approver");
  officer->add_actor({"lea", people_.stranger->public_key()});
  officer->grant({.name = "lea", .role = Role::approver, .dataset = "lab"});
  const auto elsewhere = as(Role::privacy_officer);
  present(*elsewhere, approved(proposal, people_.officer, people_.stranger));
  EXPECT_EQ(reason_of([&] { elsewhere->set_budget(more); }), "unknown_approver") << "an approver of another dataset";
  const auto good = as(Role::privacy_officer);
  const auto pair = approved(proposal, people_.officer, people_.approver);
  present(*good, pair);
  EXPECT_EQ(reason_of([&] { good->set_budget({.dataset = "ward-7", .epsilon = 3.0000001, .delta = kDelta}); }), "too_few") << "another number";
  EXPECT_EQ(reason_of([&] { good->set_budget({.dataset = "ward-8", .epsilon = 3, .delta = kDelta}); }), "") << "a first cap needs nobody";
  good->set_budget(more);
  EXPECT_EQ(ledger_->budget("ward-7")->epsilon, 3);
  const auto approval = ledger_->records("approval").back();
  EXPECT_EQ(approval.fields.at("approvers"), "ann");
  EXPECT_EQ(approval.fields.at("actor"), "olga");
  // Lowered and raised again with the same paper: an operation is done once.
  good->set_budget({.dataset = "ward-7", .epsilon = 0.1, .delta = kDelta});
  EXPECT_EQ(reason_of([&] { good->set_budget(more); }), "replayed");
  EXPECT_EQ(reason_of([&] { officer->set_budget({.dataset = "ward-7", .epsilon = 0.05, .delta = 0.1}); }), "too_few") << "a larger delta lets more through";
  EXPECT_TRUE(ledger_->verify().ok) << ledger_->verify().reason;
}

TEST_P(Access, OpeningAPurposeExportingAModelAndMovingTakeASecondPerson) {
  const auto officer = as(Role::privacy_officer);
  officer->describe_dataset({.dataset = "ward-7", .purposes = {"triage"}, .retention = 4'000'000'000'000'000});
  EXPECT_EQ(reason_of([&] { officer->describe_dataset({.dataset = "ward-7", .purposes = {"triage", "billing"}, .retention = 4'000'000'000'000'000}); }), "too_few");
  EXPECT_EQ(reason_of([&] { officer->describe_dataset({.dataset = "ward-7", .retention = 4'000'000'000'000'000}); }), "too_few") << "any purpose";
  EXPECT_EQ(reason_of([&] { officer->describe_dataset({.dataset = "ward-7", .purposes = {"triage"}}); }), "too_few") << "for ever";
  officer->describe_dataset({.dataset = "ward-7", .purposes = {"triage"}, .retention = 3'000'000'000'000'000});
  const DatasetInfo wide{.dataset = "ward-7", .purposes = {"triage", "billing"}, .retention = 3'000'000'000'000'000};
  present(*officer, approved(officer->proposal(wide), people_.officer, people_.approver));
  officer->describe_dataset(wide);
  EXPECT_EQ(ledger_->dataset_info("ward-7")->purposes.size(), 2u);

  const auto trainer = as(Role::trainer);
  const std::string run = trainer->begin_run({"ward-7", "triage", "", "{}"});
  trainer->release({"metrics", "auc", "00", run});
  EXPECT_EQ(reason_of([&] { trainer->release({"model", "weights.pt", "ab12", run, "", "acme"}); }), "too_few");
  const LedgerRecord model{"release", {{"actor", "tom"}, {"artifact", "weights.pt"}, {"dataset", "ward-7"}, {"digest", "ab12"},
                                       {"kind", "model"}, {"recipient", "acme"}, {"run", run}}};
  present(*trainer, approved(trainer->proposal(model), people_.trainer, people_.approver));
  EXPECT_EQ(reason_of([&] { trainer->release({"model", "weights.pt", "ab12", run, "", "somebody else"}); }), "too_few");
  trainer->release({"model", "weights.pt", "ab12", run, "", "acme"});
  EXPECT_EQ(ledger_->records("release").back().fields.at("recipient"), "acme");

  EXPECT_EQ(reason_of([&] { officer->move_to(folder_ / "moved.db", "olga"); }), "too_few");
  EXPECT_TRUE(ledger_->verify().ok) << ledger_->verify().reason;
}

TEST_P(Access, BreakGlassIsOnRecordBeforeItOpensAndIsReviewedBySomebodyElse) {
  const auto officer = as(Role::privacy_officer);
  officer->set_budget({.dataset = "ward-7", .epsilon = 1, .delta = kDelta});
  EXPECT_THROW(officer->break_glass({Action::raise_budget, "ward-7", "", 60}), InvalidArgument) << "a reason";
  EXPECT_THROW(officer->break_glass({Action::raise_budget, "ward-7", "epidemic", 7200}), InvalidArgument) << "an hour at most";
  EXPECT_EQ(reason_of([&] { as(Role::trainer)->break_glass({Action::export_model, "*", "hurry", 60}); }), "no_role");
  const std::int64_t glass = officer->break_glass({Action::raise_budget, "ward-7", "epidemic", 600});
  officer->set_budget({.dataset = "ward-7", .epsilon = 2, .delta = kDelta});
  const auto decision = ledger_->records("audit").back();
  EXPECT_EQ(decision.fields.at("rule"), "break_glass:" + std::to_string(glass));
  EXPECT_GT(decision.sequence, glass);
  EXPECT_EQ(reason_of([&] { officer->set_budget({.dataset = "ward-8", .epsilon = 1, .delta = kDelta}); }), "");
  EXPECT_EQ(reason_of([&] { officer->set_budget({.dataset = "ward-8", .epsilon = 2, .delta = kDelta}); }), "too_few") << "another dataset";
  EXPECT_EQ(reason_of([&] { officer->review(glass, "justified", "mine"); }), "self_review");
  as(Role::auditor)->review(glass, "justified", "there was one");
  EXPECT_THROW(as(Role::auditor)->review(glass, "unjustified", "again"), InvalidArgument);
  EXPECT_GT(ledger_->access().glasses.back().reviewed, 0);
}

TEST_P(Access, APolicyDecidesOnceThereIsOne) {
  const std::string text = policy(3, R"({"id": "train", "effect": "allow", "actions": ["train"], "datasets": ["ward-*"],
      "require": {"max_epsilon": 0.6, "delta": 1e-5, "min_noise_multiplier": 10}},
      {"id": "caps", "effect": "allow", "actions": ["set_budget"]})");
  EXPECT_THROW(publish(text, people_.trainer), Denied) << "signed by somebody else";
  const std::string signature = hex_of(people_.officer->sign("policy", bytes_of(text + " ")));
  EXPECT_EQ(reason_of([&] { as(Role::privacy_officer)->publish_policy(text, people_.officer->public_key().id(), signature); }), "altered");
  publish(text, people_.officer);
  EXPECT_EQ(ledger_->records("policy").back().fields.at("version"), "3");
  EXPECT_THROW(publish(policy(3, ""), people_.officer), InvalidArgument) << "versions rise";

  const auto trainer = as(Role::trainer);
  EXPECT_EQ(reason_of([&] { trainer->begin_run({"lab", "", "", R"({"noise_multiplier": 20})"}); }), "policy");
  EXPECT_EQ(ledger_->records("audit").back().fields.at("rule"), "policy:default");
  EXPECT_EQ(ledger_->records("audit").back().fields.at("policy"), "3");
  EXPECT_EQ(reason_of([&] { trainer->begin_run({"ward-7", "", "", R"({"noise_multiplier": 9})"}); }), "policy");
  EXPECT_EQ(reason_of([&] { trainer->begin_run({"ward-7", "", "", R"({"noise_multiplier": 20, "random": "insecure-seed"})"}); }), "policy");
  const std::string run = trainer->begin_run({"ward-7", "", "", R"({"noise_multiplier": 20})"});
  EXPECT_EQ(reason_of([&] { trainer->charge(run, Event::gaussian(5)); }), "policy") << "less noise than the plan says";
  int steps = 0;
  const auto resumed = as(Role::trainer);  // the cap of a run holds for whoever goes on with it
  for (; steps < 1000; ++steps) {
    try {
      (steps % 2 == 0 ? trainer : resumed)->charge(run, kStep);
    } catch (const BudgetExceeded&) {
      break;
    }
  }
  EXPECT_LE(ledger_->run_spent(run, kDelta).upper, 0.6);
  EXPECT_GT(ledger_->run_spent(run, kDelta).upper, 0.5);
  EXPECT_EQ(ledger_->run(run).refusals, 1);
  publish(policy(4, ""), people_.officer);
  EXPECT_EQ(reason_of([&] { trainer->charge(run, kStep); }), "policy") << "nothing is allowed any more";
  trainer->finish_run(run, "completed");  // but what happened can be said
  EXPECT_TRUE(Ledger::open(path_, false)->verify().ok) << ledger_->verify().reason;
}

TEST_P(Access, APolicyMayAskForApprovalsOfATraining) {
  publish(policy(1, R"({"id": "two", "effect": "allow", "actions": ["train"], "require": {"approvals": 1}})"), people_.officer);
  const auto trainer = as(Role::trainer);
  EXPECT_EQ(reason_of([&] { trainer->begin_run({"ward-7", "triage", "", "{}"}); }), "too_few");
  present(*trainer, approved({Action::train, {{"dataset", "ward-7"}, {"purpose", "triage"}}}, people_.trainer, people_.approver));
  const std::string run = trainer->begin_run({"ward-7", "triage", "", "{}"});
  trainer->charge(run, kStep);
  trainer->finish_run(run, "completed");
  EXPECT_EQ(reason_of([&] { trainer->begin_run({"ward-7", "triage", "", "{}"}); }), "replayed") << "once";
  const auto another = as(Role::trainer);
  present(*another, approved({Action::train, run_scope("ward-7", "triage")}, people_.trainer, people_.stranger));
  EXPECT_EQ(reason_of([&] { another->begin_run({"ward-7", "triage", "", "{}"}); }), "unknown_approver");
  EXPECT_TRUE(ledger_->verify().ok) << ledger_->verify().reason;
}

TEST_P(Access, TheLastOfficerStaysAndKeysBelongToOne) {
  const auto officer = as(Role::privacy_officer);
  EXPECT_THROW(officer->revoke("actor:olga", "coup"), InvalidArgument);
  EXPECT_THROW(officer->add_actor({"twin", people_.trainer->public_key()}), InvalidArgument) << "one key, two people";
  EXPECT_THROW(officer->grant({.name = "nobody", .role = Role::trainer}), InvalidArgument);
  EXPECT_EQ(reason_of([&] { officer->grant({.name = "tom", .role = Role::approver}); }), "separation");
  EXPECT_THROW(officer->found_access("second"), InvalidState);
  // Another key for the same person; the old one is worth nothing then.
  const Key next = new_key();
  officer->add_actor({"tom", next->public_key()});
  EXPECT_EQ(reason_of([&] { as(Role::trainer)->begin_run({"ward-7", "", "tom", "{}"}); }), "no_proof");
  as(next)->begin_run({"ward-7", "", "", "{}"});
}

TEST_P(Access, ATokenStandsForAnActorForAWhileAndForLess) {
  const auto officer = as(Role::privacy_officer);
  officer->add_actor({.name = "tom", .key = people_.trainer->public_key(), .subject = "https://idp#1234"});
  const Key session = new_key();
  const SessionInfo info{"https://idp", "hushgrad", "1234", std::string(96, 'a'), in_seconds(600), session->public_key()};
  const auto handle = as(session);
  EXPECT_THROW(handle->open_session(info), Denied) << "no provider yet";
  officer->add_provider({"https://idp", "hushgrad", "{}", "ES256", "amr:mfa"});
  SessionInfo other = info;
  other.subject = "999";
  EXPECT_THROW(handle->open_session(other), Denied);
  other = info;
  other.expires = in_seconds(13 * 3600);
  EXPECT_THROW(handle->open_session(other), Denied) << "longer than half a day";
  handle->open_session(info);
  const Key again = new_key();
  other = info;
  other.key = again->public_key();
  EXPECT_THROW(as(again)->open_session(other), Denied) << "the same token again";
  const std::string run = handle->begin_run({"ward-7", "", "", "{}"});
  EXPECT_EQ(handle->run(run).info.actor, "tom");
  handle->charge(run, kStep);
  EXPECT_TRUE(ledger_->verify().ok) << ledger_->verify().reason;
}

TEST_P(Access, ChangedAndForgedDecisionsAreNamed) {
  as(Role::privacy_officer)->set_budget({.dataset = "ward-7", .epsilon = 1, .delta = kDelta});
  const std::string run = as(Role::trainer)->begin_run({"ward-7", "", "", "{}"});
  const auto entries = ledger_->entries();
  // The owner of the file rewrites an entry and every hash after it: only signatures tell.
  const auto rewritten = [&](std::int64_t which, const std::string& from, const std::string& to) {
    ledger::State state;
    std::vector<LedgerEntry> rows;
    ledger::Hash previous{};
    for (const LedgerEntry& row : entries) {
      ledger::Entry entry{row.sequence, row.time, row.kind, row.payload, previous, {}};
      if (row.sequence == which) {
        const auto at = entry.payload.find(from);
        EXPECT_NE(at, std::string::npos) << entry.payload;
        if (at != std::string::npos) entry.payload.replace(at, from.size(), to);
      }
      previous = entry.hash = ledger::entry_hash(entry);
      if (const std::string fault = state.apply(entry); !fault.empty()) return entry.sequence;
    }
    return std::int64_t{0};
  };
  int checked = 0;
  const auto expect_named = [&](const LedgerEntry& row, const std::string& from, const std::string& to) {
    EXPECT_EQ(rewritten(row.sequence, from, to), row.sequence) << row.kind;
    ++checked;
  };
  const auto holds = [](const LedgerEntry& row, const char* text) { return row.payload.find(text) != std::string::npos; };
  for (const LedgerEntry& row : entries) {
    if (row.kind == "budget") expect_named(row, R"("epsilon":1.0)", R"("epsilon":9.0)");
    if (row.kind == "run") expect_named(row, "ward-7", "ward-8");
    if (row.kind == "grant" && holds(row, "tom")) expect_named(row, "\"trainer", "\"privacy_officer");
    if (row.kind == "audit" && holds(row, "set_budget")) expect_named(row, R"("subject":"ward-7")", R"("subject":"ward-8")");
  }
  EXPECT_EQ(checked, 4);
  // An edit of any earlier entry changes the hash that every later signature covers.
  EXPECT_GT(rewritten(2, "olga", "olgb"), 0);
}

// Somebody with a key of their own writes past the library: a decision covers what it is about, and nothing else.
TEST_P(Access, AKeyDoesNotSignMoreThanItsDecisionSays) {
  ledger::State begin;
  for (const LedgerEntry& row : ledger_->entries()) {
    ledger::Entry entry{row.sequence, row.time, row.kind, row.payload, begin.hash, {}};
    entry.hash = ledger::entry_hash(entry);
    ASSERT_EQ(begin.apply(entry), "");
  }
  const auto append = [](ledger::State& state, const std::string& kind, const std::string& payload) {
    ledger::Entry entry{state.sequence + 1, state.time, kind, payload, state.hash, {}};
    entry.hash = ledger::entry_hash(entry);
    return state.apply(entry);
  };
  // What becomes of `item` after a decision of tom's about training on ward-7 that covers it.
  const auto forged = [&](const ledger::Item& item) {
    ledger::State state = begin;
    LedgerRecord decision{"audit",
                          {{"action", "train"}, {"actor", "tom"}, {"attributes", "{}"}, {"covers", ledger::covers_of({item})},
                           {"decision", "allowed"}, {"host", ""}, {"key", people_.trainer->public_key().id()}, {"policy", ""},
                           {"purpose", "triage"}, {"reason", ""}, {"rule", "role"}, {"signature", ""}, {"subject", "ward-7"}}};
    const std::string text = ledger::signed_text(decision, state.ledger_id, state.hash);
    decision.fields["signature"] = hex_of(people_.trainer->sign("ledger decision", bytes_of(text)));
    EXPECT_EQ(append(state, "audit", ledger::encode(decision)), "");
    return append(state, item.kind, item.payload);
  };
  const auto run = [](const std::string& dataset, const std::string& purpose, const std::string& actor) {
    return ledger::Item{"run", ledger::encode(ledger::RunPayload{ledger::random_id(), {dataset, purpose, actor, "{}"}})};
  };
  EXPECT_EQ(forged(run("ward-7", "triage", "tom")), "");
  EXPECT_NE(forged(run("ward-8", "triage", "tom")).find("another dataset"), std::string::npos);
  EXPECT_NE(forged(run("ward-7", "billing", "tom")).find("another dataset or purpose"), std::string::npos);
  EXPECT_NE(forged(run("ward-7", "triage", "olga")).find("somebody else"), std::string::npos);
  const BudgetLimit cap{.dataset = "ward-7", .epsilon = 9, .delta = kDelta, .set_by = "tom"};
  EXPECT_NE(forged({"budget", ledger::encode(cap)}).find("another action"), std::string::npos);
}

// What a user has seen is not checked again on opening; an auditor, who has not, checks it all, and so does verify().
TEST_P(Access, ASignatureIsCheckedOnceAUserAndAlwaysByVerify) {
  const TemporaryFolder folder;
  const ledger_test::StateFolder mine(folder / "mine");
  as(Role::privacy_officer)->set_budget({.dataset = "ward-7", .epsilon = 1, .delta = kDelta});
  ledger::State fresh, trusting;
  trusting.trusted = INT64_MAX;
  ledger::Hash previous{};
  std::string fault_of_fresh, fault_of_trusting;
  for (const LedgerEntry& row : ledger_->entries()) {
    ledger::Entry entry{row.sequence, row.time, row.kind, row.payload, previous, {}};
    const auto at = entry.payload.find("\"signature\":\"30");  // DER
    if (row.kind == "audit" && at != std::string::npos) entry.payload[at + 13] = '4';
    previous = entry.hash = ledger::entry_hash(entry);
    if (fault_of_fresh.empty()) fault_of_fresh = fresh.apply(entry);
    if (fault_of_trusting.empty()) fault_of_trusting = trusting.apply(entry);
  }
  EXPECT_NE(fault_of_fresh.find("signature"), std::string::npos) << fault_of_fresh;
  EXPECT_EQ(fault_of_trusting, "");
}

INSTANTIATE_TEST_SUITE_P(Engines, Access, testing::Values(Engine::sqlite, Engine::postgres), ledger_test::engine_name);

TEST(AccessOff, NamesAreTakenAtTheirWord) {
  const auto ledger = Ledger::open(":memory:");
  EXPECT_FALSE(ledger->has_access_rules());
  ledger->set_budget("d", 1, kDelta);
  ledger->set_budget("d", 2, kDelta);
  const std::string run = ledger->begin_run({"d", "", "anybody", "{}"});
  ledger->charge(run, kStep);
  ledger->release({"model", "m", "00", run});
  EXPECT_TRUE(ledger->records("audit").empty());
  EXPECT_THROW(ledger->grant({.name = "x", .role = Role::trainer}), InvalidArgument);
  EXPECT_THROW(ledger->add_actor({"x", new_key()->public_key()}), InvalidState);
  EXPECT_THROW(ledger->found_access("x"), InvalidArgument) << "nobody was identified";
  ledger->charge(run, kStep);
}

TEST(TeamsAndPeriods, CountWhatTheyCover) {
  const auto ledger = Ledger::open(":memory:");
  ledger->set_budget({.dataset = "d", .epsilon = 10, .delta = kDelta});
  ledger->set_budget({.dataset = "d", .epsilon = 0.3, .delta = kDelta, .warning = 0.1, .team = "icu"});
  ledger->set_budget({.dataset = "d", .epsilon = 1, .delta = kDelta, .period = "quarter"});
  const std::string ours = ledger->begin_run({"d", "", "ada", "{}", "icu"});
  const std::string theirs = ledger->begin_run({"d", "", "bob", "{}", "lab"});
  EXPECT_THROW(
      while (true) ledger->charge(ours, kStep), BudgetExceeded);
  ledger->charge(theirs, kStep);
  EXPECT_THROW(
      while (true) ledger->charge(theirs, kStep), BudgetExceeded);
  const auto rows = ledger->budget_status("d");
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_LE(rows[1].spent.upper, 0.3);
  EXPECT_TRUE(rows[1].warns);
  EXPECT_LE(rows[2].spent.upper, 1.0);
  EXPECT_GT(rows[2].spent.upper, rows[1].spent.upper);
  EXPECT_GT(rows[2].since, 0);
  EXPECT_EQ(rows[2].spent.upper, rows[0].spent.upper);
}

}  // namespace
}  // namespace hushgrad
