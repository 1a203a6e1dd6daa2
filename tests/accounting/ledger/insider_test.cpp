// Insiders: one person with two hats, an approver of something else, somebody with a stolen key who writes past the library.
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

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

const Event kStep = Event::gaussian(20);
constexpr double kDelta = 1e-5;

class Insider : public ledger_test::Founded {
 protected:
  static std::string reason_of(const std::function<void()>& body) {
    try {
      body();
    } catch (const Denied& denied) {
      return denied.reason();
    }
    return "";
  }
  void publish(const std::string& rules, int version = 1) {
    const std::string text = ledger::canonical_plan(R"({"version": )" + std::to_string(version) + R"(, "rule": [)" + rules + "]}");
    ledger_->publish_policy(text, people_.officer->public_key().id(), hex_of(people_.officer->sign("policy", bytes_of(text))));
  }
  Key sign_in(const std::string& subject, const std::string& token) {
    const Key key = new_key();
    as(key)->open_session({"https://idp", "hushgrad", subject, std::string(96, token[0]), in_seconds(3600), key->public_key()});
    return key;
  }
  LedgerRecord model(const std::string& actor) {
    return {"release", {{"actor", actor}, {"artifact", "w.pt"}, {"dataset", "ward-7"}, {"digest", ""}, {"kind", "model"}, {"recipient", ""}, {"run", ""}}};
  }

  // The chain as somebody with the file and a key would go on with it, past the library.
  ledger::State replayed() {
    ledger::State state;
    for (const LedgerEntry& row : ledger_->entries()) {
      ledger::Entry entry{row.sequence, row.time, row.kind, row.payload, state.hash, {}};
      entry.hash = ledger::entry_hash(entry);
      EXPECT_EQ(state.apply(entry), "");
    }
    return state;
  }
  static std::string append(ledger::State& state, const std::string& kind, const std::string& payload) {
    ledger::Entry entry{state.sequence + 1, state.time, kind, payload, state.hash, {}};
    entry.hash = ledger::entry_hash(entry);
    return state.apply(entry);
  }
  // What becomes of tom's own decision to train, with these fields, under his good signature.
  std::string decided(const std::map<std::string, std::string>& fields, const RunInfo& run) {
    ledger::State state = replayed();
    const ledger::Item item{"run", ledger::encode(ledger::RunPayload{ledger::random_id(), run})};
    LedgerRecord decision{"audit",
                          {{"action", "train"}, {"actor", "tom"}, {"attributes", "{}"}, {"covers", ledger::covers_of({item})},
                           {"decision", "allowed"}, {"host", ""}, {"key", people_.trainer->public_key().id()}, {"policy", "1"},
                           {"purpose", run.purpose}, {"reason", ""}, {"rule", "policy:small"}, {"signature", ""}, {"subject", run.dataset}}};
    for (const auto& [key, value] : fields) decision.fields[key] = value;
    const std::string text = ledger::signed_text(decision, state.ledger_id, state.hash);
    decision.fields["signature"] = hex_of(people_.trainer->sign("ledger decision", bytes_of(text)));
    const std::string fault = append(state, "audit", ledger::encode(decision));
    return fault.empty() ? append(state, item.kind, item.payload) : fault;
  }
};

INSTANTIATE_TEST_SUITE_P(Engines, Insider, testing::Values(Engine::sqlite, Engine::postgres), ledger_test::engine_name);

TEST_P(Insider, OnePersonWithAKeyAndASignInIsOnePerson) {
  ledger_->add_provider({"https://idp", "hushgrad", "{}", "ES256", ""});
  const Key own = new_key();
  ledger_->add_actor({.name = "lea", .key = own->public_key(), .subject = "https://idp#lea"});
  for (const Role role : {Role::privacy_officer, Role::approver}) ledger_->grant({.name = "lea", .role = role, .expires = in_seconds(3600)});
  const Key session = sign_in("lea", "a");
  const auto lea = as(session);
  present(*lea, approved(lea->proposal(model("lea")), session, own));
  EXPECT_EQ(reason_of([&] { lea->release({.kind = "model", .artifact = "w.pt", .dataset = "ward-7"}); }), "self_approval");
  present(*lea, approved(lea->proposal(model("lea")), session, people_.approver));
  EXPECT_EQ(reason_of([&] { as(session)->release({.kind = "model", .artifact = "w.pt", .dataset = "ward-7"}); }), "too_few");
  const auto honest = as(session);
  present(*honest, approved(honest->proposal(model("lea")), session, people_.approver));
  honest->release({.kind = "model", .artifact = "w.pt", .dataset = "ward-7"});
  EXPECT_TRUE(ledger_->verify().ok) << ledger_->verify().reason;
}

TEST_P(Insider, AnApproverOfOneDatasetOrPurposeApprovesNothingElse) {
  const Key lab = new_key();
  ledger_->add_actor({"lea", lab->public_key()});
  ledger_->grant({.name = "lea", .role = Role::approver, .dataset = "lab", .purpose = "triage", .expires = in_seconds(3600)});
  const auto officer = as(people_.officer);
  const LedgerRecord moved{"moved", {{"actor", "olga"}, {"to", folder_ / "moved.db"}}};
  present(*officer, approved(officer->proposal(moved), people_.officer, lab));
  EXPECT_EQ(reason_of([&] { officer->move_to(folder_ / "moved.db", "olga"); }), "unknown_approver") << "the whole ledger is not the lab";
  publish(R"({"id": "two", "effect": "allow", "actions": ["train"], "require": {"approvals": 1}})");
  for (const auto& [purpose, expected] : {std::pair<const char*, const char*>{"billing", "unknown_approver"}, {"triage", ""}}) {
    const auto trainer = as(people_.trainer);
    present(*trainer, approved({Action::train, run_scope("lab", purpose)}, people_.trainer, lab));
    EXPECT_EQ(reason_of([&] { trainer->begin_run({"lab", purpose, "", "{}"}); }), expected) << purpose;
  }
  EXPECT_TRUE(ledger_->verify().ok) << ledger_->verify().reason;
}

TEST_P(Insider, AGlassThatIsBrokenForOneDatasetOpensNoWholeLedger) {
  const auto officer = as(people_.officer);
  officer->break_glass({Action::move, "ward-7", "a test", 600});
  EXPECT_EQ(reason_of([&] { officer->move_to(folder_ / "moved.db", "olga"); }), "too_few");
  officer->break_glass({Action::move, "*", "a test", 600});
  EXPECT_EQ(reason_of([&] { officer->move_to(folder_ / "moved.db", "olga"); }), "");
}

TEST_P(Insider, ASignInEndsWithTheKeyAndTheNameItStoodFor) {
  ledger_->add_provider({"https://idp", "hushgrad", "{}", "ES256", ""});
  const auto named = [&](const Key& key, const std::string& subject) { ledger_->add_actor({.name = "tom", .key = key->public_key(), .subject = subject}); };
  named(people_.trainer, "https://idp#tom");
  const Key session = sign_in("tom", "a");
  const std::string run = as(session)->begin_run({"ward-7", "", "", "{}"});
  named(people_.trainer, "https://idp#tom");  // as before: nothing ends
  as(session)->charge(run, kStep);
  const Key next = new_key();
  named(next, "https://idp#tom");  // the old one was stolen
  EXPECT_EQ(reason_of([&] { as(session)->charge(run, kStep); }), "no_proof");
  const Key again = sign_in("tom", "b");
  ledger_->revoke("actor:tom", "left");
  named(next, "https://idp#tom");  // and came back
  ledger_->grant({.name = "tom", .role = Role::trainer, .expires = in_seconds(3600)});
  EXPECT_EQ(reason_of([&] { as(again)->begin_run({"ward-7", "", "tom", "{}"}); }), "no_proof");
  as(next)->begin_run({"ward-7", "", "", "{}"});
}

TEST_P(Insider, AProviderFromBeforeTheFirstOfficerIsNobodys) {
  TearDown();
  if (is_sqlite()) path_ = folder_ / "before.db";
  else OnBothEngines::SetUp();
  Ledger::open(path_)->add_provider({"https://idp", "hushgrad", "{}", "ES256", ""});
  ledger_ = people_.found(path_);
  ledger_->add_actor({.name = "tom", .key = people_.trainer->public_key(), .subject = "https://idp#tom"});
  EXPECT_EQ(reason_of([&] { sign_in("tom", "a"); }), "unknown_issuer");
}

// A stolen key of a trainer and the file: what the policy withholds stays withheld, also for who does not ask the library.
TEST_P(Insider, AStolenKeyDoesNotDecideWhatThePolicyDecides) {
  publish(R"({"id": "night", "effect": "deny", "datasets": ["vault"]},
             {"id": "small", "effect": "allow", "actions": ["train"], "datasets": ["ward-*"], "require": {"max_epsilon": 0.5, "delta": 1e-5}},
             {"id": "loud", "effect": "allow", "actions": ["train"], "datasets": ["lab"], "require": {"min_noise_multiplier": 2, "approvals": 1}})");
  const RunInfo ward{"ward-7", "", "tom", "{}"}, vault{"vault", "", "tom", "{}"}, lab{"lab", "", "tom", "{}"}, other{"other", "", "tom", "{}"};
  EXPECT_EQ(decided({}, ward), "") << "what the library would write";
  EXPECT_NE(decided({{"rule", "role"}}, ward).find("another rule"), std::string::npos) << "a run without its cap";
  EXPECT_NE(decided({{"policy", ""}}, ward).find("another rule"), std::string::npos);
  EXPECT_NE(decided({{"policy", "7"}}, ward).find("another rule"), std::string::npos);
  EXPECT_NE(decided({{"rule", "policy:loud"}}, ward).find("another rule"), std::string::npos);
  EXPECT_NE(decided({{"rule", "policy:night"}}, vault).find("may not do"), std::string::npos);
  EXPECT_NE(decided({{"rule", "policy:default"}}, other).find("may not do"), std::string::npos);
  EXPECT_NE(decided({{"rule", "policy:loud"}, {"attributes", R"({"approvals":1,"noise_multiplier":3.0})"}}, lab).find("may not do"), std::string::npos) << "nobody approved";
}

TEST_P(Insider, WhatWasDecidedAndNotWrittenIsDecidedAgain) {
  const std::string run = as(people_.trainer)->begin_run({"ward-7", "", "", "{}"});
  as(people_.officer)->set_budget({.dataset = "ward-7", .epsilon = 5, .delta = kDelta});
  const auto resumed = as(people_.trainer);
  const auto decisions = [&] { return ledger_->records("audit").size(); };
  const auto before = decisions();
  EXPECT_THROW(resumed->charge(run, Event::unsupported("a test")), Unsupported);
  EXPECT_EQ(decisions(), before) << "nothing was written";
  resumed->charge(run, kStep);
  EXPECT_EQ(decisions(), before + 1) << "its proof is on record before its first step";
}

TEST_P(Insider, MoreThanSoMuchEpsilonTakesASecondPerson) {
  publish(R"({"id": "two", "effect": "allow", "actions": ["train"], "require": {"approvals": 1, "max_epsilon": 1.5, "max_epsilon_unapproved": 0.5, "delta": 1e-5}})");
  const auto steps_of = [&](Ledger& ledger, const std::string& run) {
    for (int steps = 0; steps < 10'000; ++steps) {
      try {
        ledger.charge(run, kStep);
      } catch (const BudgetExceeded&) {
        break;
      }
    }
    return ledger.run_spent(run, kDelta).upper;
  };
  const auto alone = as(people_.trainer), two = as(people_.trainer);
  const std::string small = alone->begin_run({"ward-7", "", "", "{}"});
  const double unapproved = steps_of(*alone, small);
  EXPECT_LE(unapproved, 0.5);
  EXPECT_GT(unapproved, 0.4);
  present(*two, approved({Action::train, run_scope("ward-7", "")}, people_.trainer, people_.approver));
  const std::string large = two->begin_run({"ward-7", "", "", "{}"});
  const double with_approval = steps_of(*two, large);
  EXPECT_LE(with_approval, 1.5);
  EXPECT_GT(with_approval, 1.3);
  EXPECT_EQ(steps_of(*as(people_.trainer), small), unapproved) << "another process does not change the cap of a run";
  EXPECT_EQ(steps_of(*as(people_.trainer), large), with_approval);
  const auto bad = as(people_.trainer);
  present(*bad, approved({Action::train, run_scope("ward-7", "")}, people_.trainer, people_.trainer));
  const std::string self = bad->begin_run({"ward-7", "", "", "{}"});
  EXPECT_LE(steps_of(*bad, self), 0.5) << "one's own approval is none";
  EXPECT_TRUE(Ledger::open(path_, false)->verify().ok) << ledger_->verify().reason;
}

// Who, what, when, where, why, under which policy: at every point where something is decided, allowed or denied.
TEST_P(Insider, EveryDecisionIsOnRecordWithAllThatIsAskedOfIt) {
  const auto seen = [&] { return ledger_->records("audit").size(); };
  std::size_t before = seen();
  int points = 0;
  std::set<std::string> rules;
  const auto last = [&](const std::string& what, const std::string& decision, const std::string& who, const std::string& policy) {
    const auto records = ledger_->records("audit");
    EXPECT_EQ(records.size(), before + 1) << what;
    before = records.size();
    const LedgerRecord& record = records.back();
    const auto field = [&](const char* key) { return record.fields.count(key) > 0 ? record.fields.at(key) : std::string("(none)"); };
    EXPECT_EQ(field("decision"), decision) << what;
    EXPECT_EQ(field("actor"), who) << what;
    EXPECT_EQ(field("policy"), policy) << what;
    EXPECT_EQ(field("host").size(), 16u) << what << ": where";
    EXPECT_FALSE(field("action").empty() || field("rule").empty()) << what;
    EXPECT_EQ(field("reason").empty(), decision == "allowed") << what << ": why";
    EXPECT_GT(record.time, 0) << what;
    EXPECT_FALSE(decision == "allowed" && field("signature").empty()) << what;
    rules.insert(field("rule").substr(0, field("rule").find(':')));
    ++points;
  };
  const auto allowed = [&](const std::string& what, const std::string& who, const std::function<void()>& body, const std::string& policy = "") {
    EXPECT_EQ(reason_of(body), "") << what;
    last(what, "allowed", who, policy);
  };
  const auto denied = [&](const std::string& what, const std::string& who, const std::function<void()>& body, const std::string& policy = "") {
    EXPECT_ANY_THROW(body()) << what;
    last(what, "denied", who, policy);
  };
  const auto officer = as(people_.officer), trainer = as(people_.trainer), auditor = as(people_.auditor), nobody = as(people_.stranger);
  // Every action of every method, allowed and denied.
  allowed("cap", "olga", [&] { officer->set_budget({.dataset = "ward-7", .epsilon = 1, .delta = kDelta}); });
  denied("cap", "tom", [&] { trainer->set_budget({.dataset = "ward-7", .epsilon = 0.5, .delta = kDelta}); });
  denied("raise", "olga", [&] { officer->set_budget({.dataset = "ward-7", .epsilon = 2, .delta = kDelta}); });
  present(*officer, approved(officer->proposal(BudgetLimit{.dataset = "ward-7", .epsilon = 2, .delta = kDelta}), people_.officer, people_.approver));
  allowed("raise", "olga", [&] { officer->set_budget({.dataset = "ward-7", .epsilon = 2, .delta = kDelta}); });
  allowed("describe", "olga", [&] { officer->describe_dataset({.dataset = "ward-7", .purposes = {"triage"}}); });
  denied("add a purpose", "olga", [&] { officer->describe_dataset({.dataset = "ward-7", .purposes = {"triage", "billing"}}); });
  denied("describe", "tom", [&] { trainer->describe_dataset({.dataset = "ward-8"}); });
  denied("train for another purpose", "tom", [&] { trainer->begin_run({"ward-7", "billing", "", "{}"}); });
  denied("train as somebody else", "olga", [&] { trainer->begin_run({"ward-7", "triage", "olga", "{}"}); });
  denied("train as nobody", "eve", [&] { nobody->begin_run({"ward-7", "triage", "eve", "{}"}); });
  std::string run;
  allowed("train", "tom", [&] { run = trainer->begin_run({"ward-7", "triage", "", "{}"}); });
  allowed("go on", "tom", [&] { as(people_.trainer)->charge(run, kStep); });
  denied("go on with another's run", "tom", [&] { nobody->charge(run, kStep); });
  denied("spend more than a budget", "tom", [&] { for (;;) trainer->charge(run, Event::gaussian(0.5)); });
  denied("other neighbours", "tom", [&] { trainer->begin_run({"ward-7", "triage", "", R"({"unit": "user"})"}); });
  allowed("metrics", "tom", [&] { trainer->release({"metrics", "auc", "", run}); });
  denied("model", "tom", [&] { trainer->release({"model", "w.pt", "", run}); });
  denied("finish another's run", "tom", [&] { nobody->finish_run(run, "failed"); });
  allowed("finish", "tom", [&] { trainer->finish_run(run, "completed"); });
  allowed("export", "axel", [&] { auditor->authorise_export(); });
  denied("export", "tom", [&] { trainer->authorise_export(); });
  denied("move", "olga", [&] { officer->move_to(folder_ / "moved.db", "olga"); });
  allowed("actor", "olga", [&] { officer->add_actor({"lea", people_.stranger->public_key()}); });
  denied("actor", "tom", [&] { trainer->add_actor({"eve", new_key()->public_key()}); });
  allowed("grant", "olga", [&] { officer->grant({.name = "lea", .role = Role::auditor, .expires = in_seconds(60)}); });
  denied("two duties", "olga", [&] { officer->grant({.name = "lea", .role = Role::trainer}); });
  allowed("revoke", "olga", [&] { officer->revoke("actor:lea", "a test"); });
  denied("revoke", "tom", [&] { trainer->revoke("actor:ann", ""); });
  allowed("provider", "olga", [&] { officer->add_provider({"https://idp", "hushgrad", "{}", "ES256", ""}); });
  denied("sign-in", "", [&] { sign_in("nobody", "a"); });
  denied("sign-in whose token does not hold", "", [&] {
    Ledger::open(path_, false)->refuse_sign_in("https://idp", "signature");
    throw Denied("signature", "as the library does");
  });
  std::int64_t glass = 0;
  allowed("break the glass", "olga", [&] { glass = officer->break_glass({Action::raise_budget, "ward-8", "a test", 60}); });
  denied("break the glass", "tom", [&] { trainer->break_glass({Action::export_model, "*", "a test", 60}); });
  denied("review one's own", "olga", [&] { officer->review(glass, "justified", "mine"); });
  allowed("review", "axel", [&] { auditor->review(glass, "justified", "there was one"); });
  allowed("first cap", "olga", [&] { officer->set_budget({.dataset = "ward-8", .epsilon = 1, .delta = kDelta}); });
  allowed("through the glass", "olga", [&] { officer->set_budget({.dataset = "ward-8", .epsilon = 2, .delta = kDelta}); });
  allowed("paper", "tom", [&] { trainer->record({"release", {{"actor", "tom"}, {"artifact", "x"}, {"digest", ""}, {"run", ""}}}); });
  allowed("policy", "olga", [&] {
    publish(R"({"id": "t", "effect": "allow", "actions": ["train"], "datasets": ["ward-*"], "require": {"min_noise_multiplier": 10, "max_epsilon": 0.3, "delta": 1e-5}})");
  });
  denied("policy", "tom", [&] {
    const std::string text = ledger::canonical_plan(R"({"version": 2})");
    trainer->publish_policy(text, people_.trainer->public_key().id(), hex_of(people_.trainer->sign("policy", bytes_of(text))));
  }, "1");
  denied("plan", "tom", [&] { trainer->begin_run({"ward-7", "triage", "", R"({"noise_multiplier": 9})"}); }, "1");
  denied("no rule", "tom", [&] { trainer->begin_run({"lab", "", "", R"({"noise_multiplier": 20})"}); }, "1");
  allowed("by a rule", "tom", [&] { run = trainer->begin_run({"ward-7", "triage", "", R"({"noise_multiplier": 20})"}); }, "1");
  denied("a quieter event", "tom", [&] { trainer->charge(run, Event::gaussian(5)); }, "1");
  denied("more than the policy's cap", "tom", [&] { for (;;) trainer->charge(run, kStep); }, "1");
  ledger_->expect({9'999'999, std::string(96, 'a')});  // somebody has seen what is not here
  const auto missing = as(people_.officer);
  missing->expect({9'999'999, std::string(96, 'a')});
  denied("repair", "olga", [&] { missing->repair("olga", "ann", "a test"); }, "1");
  EXPECT_EQ(points, 46);
  for (const char* rule : {"role", "approval", "proof", "actor", "policy", "break_glass", "dataset", "budget", "token", "access", "own run"}) {
    EXPECT_EQ(rules.count(rule), 1u) << "no decision by " << rule;
  }
  EXPECT_TRUE(Ledger::open(path_, false)->verify().ok) << Ledger::open(path_, false)->verify().reason;
}

}  // namespace
}  // namespace hushgrad
