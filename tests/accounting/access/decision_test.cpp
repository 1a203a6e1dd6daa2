// Denied is denied: every role, every action, every state, against a table that is written out here a second time.
#include "accounting/access/decision.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "accounting/access/people.h"
#include "dpcore/error.h"

namespace hushgrad {
namespace {

constexpr std::int64_t kSecond = 1'000'000;
const std::int64_t kNow = utc_seconds("2026-06-01T12:00:00Z").value() * kSecond;  // a Monday

std::string at(std::int64_t seconds) { return time_text(kNow + seconds * kSecond); }

// Written by hand from docs/access.md, not from role.cpp.
const std::map<std::string, std::set<std::string>> kTable = {
    {"train", {"trainer"}},
    {"finish", {}},  // of one's own run: nothing but proof
    {"set_budget", {"privacy_officer"}},
    {"raise_budget", {"privacy_officer"}},
    {"describe", {"privacy_officer"}},
    {"add_purpose", {"privacy_officer"}},
    {"release_metrics", {"trainer", "privacy_officer"}},
    {"release_checkpoint", {"trainer", "privacy_officer"}},
    {"export_model", {"trainer", "privacy_officer"}},
    {"export_ledger", {"privacy_officer", "auditor"}},
    {"move", {"privacy_officer"}},
    {"repair", {"privacy_officer"}},
    {"manage_access", {"privacy_officer"}},
    {"publish_policy", {"privacy_officer"}},
    {"break_glass", {"trainer", "approver", "privacy_officer"}},
    {"review", {"privacy_officer", "auditor"}},
    {"record", {"trainer", "approver", "privacy_officer", "key_custodian"}},
};
const std::set<std::string> kTwoPersons = {"raise_budget", "add_purpose", "export_model", "move", "repair"};
const std::set<std::string> kTokens = {"train", "finish", "release_metrics", "release_checkpoint", "export_model", "export_ledger", "record"};
const std::set<std::string> kAnywhere = {"break_glass", "review", "record"};  // no dataset has to be named

LedgerRecord actor_record(const std::string& by, const std::string& name, const PublicKey& key) {
  return {"actor", {{"actor", by}, {"key", key_line(key)}, {"name", name}, {"subject", ""}, {"team", ""}}};
}

LedgerRecord grant_record(const std::string& name, Role role, const std::string& dataset, const std::string& purpose,
                          const std::string& starts, const std::string& expires) {
  return {"grant",
          {{"actor", "olga"}, {"dataset", dataset}, {"expires", expires}, {"name", name}, {"purpose", purpose}, {"reason", ""},
           {"role", to_string(role)}, {"starts", starts}}};
}

class Decision : public testing::Test {
 protected:
  Decision() {
    access_.apply(actor_record("olga", "olga", key_->public_key()), 2, kNow - 1000);
    access_.apply(grant_record("olga", Role::privacy_officer, "*", "*", "", ""), 3, kNow - 1000);
    access_.apply(actor_record("olga", "eve", ledger_test::new_key()->public_key()), 4, kNow - 1000);
  }
  void give(Role role, const std::string& dataset = "ward-*", const std::string& purpose = "triage", const std::string& starts = "",
            const std::string& expires = "") {
    access_.apply(grant_record("eve", role, dataset, purpose, starts, expires), ++sequence_, kNow - 1000);
  }
  static AccessRequest request(Action action) {
    return {.action = action, .actor = "eve", .subject = "ward-7", .purpose = "triage", .proof = "key", .approvals = 1};
  }

  ledger_test::Key key_ = ledger_test::new_key();
  AccessState access_;
  std::int64_t sequence_ = 10;
};

TEST_F(Decision, EveryCellOfTheTable) {
  struct State {
    const char* name;
    std::string dataset, purpose, starts, expires;
    bool revoked, actor_revoked, opens;
  };
  const std::vector<State> states = {
      {"active", "ward-*", "triage", "", at(60), false, false, true},
      {"without end", "*", "*", "", "", false, false, true},
      {"expired", "ward-*", "triage", "", at(0), false, false, false},
      {"not yet", "ward-*", "triage", at(1), at(60), false, false, false},
      {"begins now", "ward-*", "triage", at(0), at(60), false, false, true},
      {"revoked", "ward-*", "triage", "", at(60), true, false, false},
      {"actor revoked", "ward-*", "triage", "", at(60), false, true, false},
      {"other dataset", "ward-8", "triage", "", at(60), false, false, false},
      {"other purpose", "ward-*", "billing", "", at(60), false, false, false},
      {"none", "", "", "", "", false, false, false},
  };
  const AccessState before = access_;
  int cells = 0;
  for (const State& state : states) {
    for (const Role role : all_roles()) {
      access_ = before;
      if (!state.dataset.empty()) give(role, state.dataset, state.purpose, state.starts, state.expires);
      if (state.revoked) access_.grants.back().revoked = 99;
      if (state.actor_revoked) access_.actors.back().revoked = 99;
      for (const Action action : all_actions()) {
        const std::string name = to_string(action);
        bool allows = state.opens && kTable.at(name).count(to_string(role)) > 0;
        for (const char* proof : {"key", "oidc", ""}) {
          for (const std::int64_t approvals : {0, 1}) {
            AccessRequest asked = request(action);
            asked.proof = proof;
            asked.approvals = approvals;
            const bool proven = std::string(proof) == "key" || (std::string(proof) == "oidc" && kTokens.count(name) > 0);
            if (name == "finish") allows = !state.actor_revoked;
            const bool expected = allows && proven && (approvals > 0 || kTwoPersons.count(name) == 0);
            const AccessDecision decision = decide(access_, asked, kNow);
            EXPECT_EQ(decision.allowed, expected) << state.name << ", " << to_string(role) << ", " << name << ", proof '" << proof
                                                  << "', " << approvals << " approvals: " << decision.reason;
            EXPECT_EQ(decision.word.empty(), decision.allowed);
            EXPECT_FALSE(decision.rule.empty());
            ++cells;
          }
        }
      }
    }
  }
  EXPECT_EQ(cells, 10 * 5 * 17 * 3 * 2);
}

TEST_F(Decision, PurposeOnlyMattersWhereThereIsOne) {
  give(Role::privacy_officer, "ward-*", "triage", "", at(60));
  AccessRequest asked = request(Action::set_budget);
  asked.purpose = "";
  EXPECT_TRUE(decide(access_, asked, kNow).allowed);
  asked.subject = "";
  EXPECT_FALSE(decide(access_, asked, kNow).allowed) << "what concerns everything takes a grant for everything";
}

TEST_F(Decision, WithoutActorsNothingIsAsked) {
  AccessState empty;
  EXPECT_TRUE(decide(empty, {.action = Action::repair, .actor = "", .subject = ""}, kNow).allowed);
}

TEST_F(Decision, NobodyKnownMayDoNothing) {
  AccessRequest asked = request(Action::train);
  asked.actor = "mallory";
  EXPECT_EQ(decide(access_, asked, kNow).word, "unknown_actor");
}

TEST_F(Decision, IncompatibleDutiesAreRefusedAloud) {
  for (const Role one : all_roles()) {
    for (const Role other : all_roles()) {
      const bool goes = one == other || (one == Role::approver && other == Role::privacy_officer) ||
                        (one == Role::privacy_officer && other == Role::approver);
      AccessState trial = access_;
      trial.apply(grant_record("eve", one, "*", "*", "", at(60)), 20, kNow);
      const auto second = grant_record("eve", other, "ward-8", "*", "", at(60));
      if (goes) {
        EXPECT_NO_THROW(trial.apply(second, 21, kNow));
      } else {
        EXPECT_THROW(trial.apply(second, 21, kNow), Denied) << to_string(one) << " " << to_string(other);
        EXPECT_NO_THROW(trial.apply(grant_record("eve", other, "*", "*", "", at(600)), 22, kNow + 61 * kSecond)) << "the first is over";
      }
    }
  }
}

TEST_F(Decision, AFutureGrantCountsAgainstSeparationToo) {
  give(Role::trainer, "*", "*", at(3600), at(7200));
  EXPECT_THROW(give(Role::approver), Denied);
}

class PolicyDecision : public Decision {
 protected:
  PolicyDecision() { give(Role::trainer, "*", "*", "", at(86400 * 400)); }
  AccessDecision ask(const std::string& rules, AccessRequest asked, std::int64_t time = kNow) {
    AccessState trial = access_;
    trial.policies.push_back({5, parse_policy(R"({"version": 1, "rule": [)" + rules + "]}")});
    return decide(trial, asked, time);
  }
};

TEST_F(PolicyDecision, DeniesWhatNoRuleAllows) {
  const AccessDecision decision = ask("", request(Action::train));
  EXPECT_FALSE(decision.allowed);
  EXPECT_EQ(decision.rule, "policy:default");
  EXPECT_EQ(decision.policy, "1");
}

TEST_F(PolicyDecision, NeverOpensWhatRolesDoNot) {
  EXPECT_EQ(ask(R"({"id": "all", "effect": "allow"})", request(Action::repair)).rule, "role");
}

TEST_F(PolicyDecision, TheFirstRuleThatFitsDecides) {
  const std::string deny = R"({"id": "no", "effect": "deny", "datasets": ["ward-7"]})", allow = R"({"id": "yes", "effect": "allow"})";
  EXPECT_EQ(ask(deny + "," + allow, request(Action::train)).rule, "policy:no");
  EXPECT_EQ(ask(allow + "," + deny, request(Action::train)).rule, "policy:yes");
}

TEST_F(PolicyDecision, ConditionsNarrow) {
  AccessRequest asked = request(Action::train);
  asked.environment = "cluster";
  const auto allows = [&](const std::string& condition, std::int64_t time = kNow) {
    return ask(R"({"id": "r", "effect": "allow", )" + condition + "}", asked, time).allowed;
  };
  EXPECT_TRUE(allows(R"("actions": ["train"])"));
  EXPECT_FALSE(allows(R"("actions": ["record"])"));
  EXPECT_TRUE(allows(R"("roles": ["trainer"])"));
  EXPECT_FALSE(allows(R"("roles": ["privacy_officer"])"));
  EXPECT_TRUE(allows(R"("datasets": ["w*7"])"));
  EXPECT_FALSE(allows(R"("datasets": ["ward"])"));
  EXPECT_FALSE(allows(R"("purposes": ["billing"])"));
  EXPECT_TRUE(allows(R"("environments": ["cluster", "lab"])"));
  EXPECT_FALSE(allows(R"("environments": ["lab"])"));
  EXPECT_FALSE(allows(R"("actors": ["tom"])"));
  EXPECT_TRUE(allows(R"("days": ["mon"])"));
  EXPECT_FALSE(allows(R"("days": ["tue", "sun"])"));
  EXPECT_TRUE(allows(R"("hours": "12:00-12:01")"));
  EXPECT_FALSE(allows(R"("hours": "08:00-12:00")"));
  EXPECT_FALSE(allows(R"("hours": "22:00-06:00")"));
  EXPECT_TRUE(allows(R"("hours": "22:00-06:00")", kNow + 13 * 3600 * kSecond));
  EXPECT_TRUE(allows(R"("not_before": "2026-06-01T12:00:00Z")"));
  EXPECT_FALSE(allows(R"("not_after": "2026-06-01T12:00:00Z")"));
}

TEST_F(PolicyDecision, RequirementsAreMetOrItIsDenied) {
  AccessRequest asked = request(Action::train);
  asked.noise_multiplier = 1.0;
  asked.sensitivity = "certified";
  asked.accountant = "pld";
  const auto allows = [&](const std::string& requirement) {
    return ask(R"({"id": "r", "effect": "allow", "require": {)" + requirement + "}}", asked).allowed;
  };
  EXPECT_TRUE(allows(""));
  EXPECT_TRUE(allows(R"("min_noise_multiplier": 1.0)"));
  EXPECT_FALSE(allows(R"("min_noise_multiplier": 1.0000001)"));
  EXPECT_TRUE(allows(R"("sensitivity": ["certified"])"));
  EXPECT_FALSE(allows(R"("sensitivity": ["empirical"])"));
  EXPECT_FALSE(allows(R"("accountants": ["rdp"])"));
  EXPECT_TRUE(allows(R"("approvals": 1)"));
  EXPECT_FALSE(allows(R"("approvals": 2)"));
  EXPECT_FALSE(allows(R"("proof": ["oidc"])"));
  asked.insecure_seed = true;
  EXPECT_FALSE(allows("")) << "randomness that repeats is denied unless a rule says otherwise";
  EXPECT_TRUE(allows(R"("insecure_seeds": true)"));
  asked.noise_multiplier.reset();
  EXPECT_FALSE(allows(R"("insecure_seeds": true, "min_noise_multiplier": 0.1)")) << "a plan that does not say";
}

TEST_F(PolicyDecision, CannotLockOutWhoeverCouldReplaceIt) {
  AccessRequest asked = request(Action::publish_policy);
  asked.actor = "olga";
  asked.subject = "";
  EXPECT_TRUE(ask("", asked).allowed);
  EXPECT_TRUE(ask(R"({"id": "nothing", "effect": "deny"})", asked).allowed);
  EXPECT_FALSE(ask(R"({"id": "never", "effect": "deny", "actions": ["publish_policy"]})", asked).allowed) << "said by name";
}

TEST_F(PolicyDecision, ABrokenGlassOpensPolicyAndApprovalButNoRole) {
  AccessRequest asked = request(Action::raise_budget);
  asked.actor = "olga";
  asked.approvals = 0;
  EXPECT_EQ(decide(access_, asked, kNow).word, "too_few");
  access_.glasses.push_back({30, "olga", Action::raise_budget, "ward-*", "fire", kNow - 1, kNow + 1, kNow + 100, 0});
  EXPECT_EQ(decide(access_, asked, kNow).rule, "break_glass:30");
  EXPECT_EQ(ask(R"({"id": "no", "effect": "deny"})", asked).rule, "break_glass:30");
  EXPECT_FALSE(decide(access_, asked, kNow + 1).allowed) << "over";
  asked.subject = "lab";
  EXPECT_FALSE(decide(access_, asked, kNow).allowed) << "another dataset";
  asked.subject = "ward-7";
  asked.action = Action::repair;
  EXPECT_FALSE(decide(access_, asked, kNow).allowed) << "another action";
  asked.action = Action::raise_budget;
  asked.proof = "";
  EXPECT_FALSE(decide(access_, asked, kNow).allowed) << "no proof";
  access_.glasses.push_back({31, "eve", Action::raise_budget, "*", "fire", kNow - 1, kNow + 1, kNow + 100, 0});
  asked.actor = "eve";
  asked.proof = "key";
  EXPECT_EQ(decide(access_, asked, kNow).rule, "role");
}

TEST(Matches, StarsStandForAnyBytesAndNothingElseDoes) {
  EXPECT_TRUE(matches("*", ""));
  EXPECT_TRUE(matches("", ""));
  EXPECT_FALSE(matches("", "a"));
  EXPECT_TRUE(matches("ward-*", "ward-"));
  EXPECT_TRUE(matches("*a*b*", "xxaxxbxx"));
  EXPECT_FALSE(matches("*a*b", "xxbxa"));
  EXPECT_FALSE(matches("ward-?", "ward-7"));
  EXPECT_FALSE(matches("[w]ard", "ward"));
  EXPECT_TRUE(matches("a*a*a*a*a*b", std::string(200, 'a') + "b"));
}

}  // namespace
}  // namespace hushgrad
