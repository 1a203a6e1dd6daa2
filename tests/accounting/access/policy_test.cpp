#include "accounting/access/policy.h"

#include <gtest/gtest.h>

#include "dpcore/error.h"

namespace hushgrad {
namespace {

std::string rule(const std::string& more) { return R"({"version": 1, "rule": [{"id": "r", "effect": "allow")" + more + "}]}"; }

TEST(ParsePolicy, ReadsEverythingItKnows) {
  const Policy policy = parse_policy(R"({
    "version": 7, "name": "clinic",
    "separation": {"insecure_combine": [["trainer", "approver"]]},
    "grants": {"max_hours": 8},
    "break_glass": {"roles": ["approver"], "max_minutes": 15, "review_hours": 24},
    "rule": [{"id": "train", "effect": "allow", "actions": ["train"], "roles": ["trainer"], "datasets": ["ward-*"],
              "days": ["mon", "sun"], "hours": "08:00-18:30", "not_before": "2026-01-01T00:00:00Z",
              "require": {"max_epsilon": 1.5, "delta": 1e-6, "proof": ["key"]}}]})");
  EXPECT_EQ(policy.version, 7);
  EXPECT_EQ(policy.max_grant_seconds, 8 * 3600);
  EXPECT_EQ(policy.break_glass_roles, std::vector<Role>{Role::approver});
  EXPECT_EQ(policy.break_glass_seconds, 900);
  EXPECT_EQ(policy.insecure_combine.size(), 1u);
  ASSERT_EQ(policy.rules.size(), 1u);
  EXPECT_EQ(policy.rules[0].days, (std::vector<int>{0, 6}));
  EXPECT_EQ(policy.rules[0].to_minute, 18 * 60 + 30);
  EXPECT_EQ(policy.rules[0].require.max_epsilon, 1.5);
  EXPECT_EQ(policy.rule("train"), &policy.rules[0]);
  EXPECT_EQ(policy.rule("other"), nullptr);
}

TEST(ParsePolicy, ACapWithoutApprovalLiesBelowTheOneWith) {
  const auto parsed = [](const std::string& require) {
    return parse_policy(R"({"version": 1, "rule": [{"id": "a", "effect": "allow", "require": {)" + require + "}}]}").rules.at(0);
  };
  const PolicyRule rule = parsed(R"("approvals": 2, "delta": 1e-5, "max_epsilon": 3, "max_epsilon_unapproved": 1)");
  EXPECT_EQ(rule.cap(0), 1.0);
  EXPECT_EQ(rule.cap(1), 1.0);
  EXPECT_EQ(rule.cap(2), 3.0);
  for (const char* bad : {R"("approvals": 2, "delta": 1e-5, "max_epsilon": 3, "max_epsilon_unapproved": 3.1)",
                          R"("delta": 1e-5, "max_epsilon": 3, "max_epsilon_unapproved": 1)", R"("approvals": 2, "max_epsilon_unapproved": 1)",
                          R"("approvals": 2, "delta": 1e-5, "max_epsilon": 3, "max_epsilon_unapproved": -1)"}) {
    EXPECT_THROW(parsed(bad), InvalidArgument) << bad;
  }
}

TEST(ParsePolicy, NobodyMayBreakTheGlassWhereTheListIsEmpty) {
  EXPECT_TRUE(parse_policy(R"({"version": 1, "break_glass": {"roles": []}})").break_glass_roles.empty());
}

TEST(ParsePolicy, RefusesWhatItDoesNotKnow) {
  const std::string bad[] = {
      "", "[]", "null", "{}", R"({"version": 0})", R"({"version": 1.5})", R"({"version": -1})", R"({"version": "1"})",
      R"({"version": 1e300})", R"({"version": 1, "rules": []})", R"({"version": 1, "rule": {}})", R"({"version": 1, "rule": [1]})",
      R"({"version": 1, "rule": [{"id": "a", "effect": "allow"}, {"id": "a", "effect": "deny"}]})",
      R"({"version": 1, "rule": [{"effect": "allow"}]})", R"({"version": 1, "rule": [{"id": "", "effect": "allow"}]})",
      R"({"version": 1, "rule": [{"id": "a", "effect": "maybe"}]})",
      R"({"version": 1, "rule": [{"id": "a", "effect": "deny", "require": {}}]})", R"({"version": 1, "grants": {"hours": 1}})",
      R"({"version": 1, "grants": {"max_hours": 0}})", R"({"version": 1, "break_glass": {"max_minutes": 1e9}})",
      R"({"version": 1, "separation": {"insecure_combine": [["trainer"]]}})",
      R"({"version": 1, "separation": {"insecure_combine": [["trainer", "boss"]]}})",
      rule(R"(, "action": ["train"])"), rule(R"(, "actions": ["fly"])"), rule(R"(, "actions": [])"), rule(R"(, "actions": "train")"),
      rule(R"(, "datasets": [7])"), rule(R"(, "days": ["monday"])"), rule(R"(, "hours": "8-18")"), rule(R"(, "hours": "08:00-08:00")"),
      rule(R"(, "hours": "08:60-09:00")"), rule(R"(, "hours": "00:00-24:01")"), rule(R"(, "not_before": "2026-02-31T00:00:00Z")"),
      rule(R"(, "require": {"max_epsilon": 1})"), rule(R"(, "require": {"delta": 1e-5})"),
      rule(R"(, "require": {"max_epsilon": -1, "delta": 1e-5})"), rule(R"(, "require": {"max_epsilon": 1, "delta": 0})"),
      rule(R"(, "require": {"max_epsilon": 1, "delta": 1})"), rule(R"(, "require": {"min_noise_multiplier": 0})"),
      rule(R"(, "require": {"approvals": 17})"), rule(R"(, "require": {"approvals": 1.5})"), rule(R"(, "require": {"proof": ["word"]})"),
      rule(R"(, "require": {"sensitivity": ["none"]})"), rule(R"(, "require": {"insecure_seeds": 1})"),
      rule(R"(, "datasets": ["a\u202eb"])"), std::string(2 << 20, ' '),
  };
  for (const std::string& text : bad) EXPECT_THROW(parse_policy(text), InvalidArgument) << text.substr(0, 200);
  std::string deep;
  for (int i = 0; i < 100'000; ++i) deep += "[";
  EXPECT_THROW(parse_policy(R"({"version": 1, "rule": )" + deep), InvalidArgument);
}

}  // namespace
}  // namespace hushgrad
