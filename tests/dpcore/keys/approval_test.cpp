#include "dpcore/keys/approval.h"

#include "dpcore/error.h"
#include "dpcore/keys/seal_testing.h"
#include "dpcore/keys/utc_time.h"

namespace hushgrad {
namespace {

using namespace seal_testing;

struct People {
  SigningKey requester = SigningKey::generate(SignatureAlgorithm::ed25519);
  SigningKey ada = SigningKey::generate();
  SigningKey ben = SigningKey::generate(SignatureAlgorithm::ed25519);
  SigningKey eve = SigningKey::generate(SignatureAlgorithm::ed25519);

  Operation ask() const {
    return make_operation("shred", {{"dataset", "icu"}, {"generation", "7"}}, "retention ended",
                          requester.public_key().id(), 3600);
  }
  ApprovalRules rules() const { return {{ada.public_key(), ben.public_key()}, 2, utc_now(), {}}; }
};

std::string denied(const Operation& operation, const std::vector<Approval>& approvals, const ApprovalRules& rules) {
  try {
    check_approvals(operation, approvals, rules);
  } catch (const Denied& error) {
    EXPECT_TRUE(std::string_view(error.what()).starts_with("[approval] "));
    return error.reason();
  }
  return "allowed";
}

TEST(Approval, EnoughApproversAllowTheOperation) {
  const People p;
  const Operation operation = p.ask();
  const Approval a = approve(operation, p.ada), b = approve(operation, p.ben);
  std::vector<std::string> expected{p.ada.public_key().id(), p.ben.public_key().id()};
  std::sort(expected.begin(), expected.end());
  EXPECT_EQ(check_approvals(operation, std::vector{a, b}, p.rules()), expected);
  ApprovalRules one = p.rules();
  one.quorum = 1;
  EXPECT_EQ(check_approvals(operation, std::vector{b}, one).size(), 1u);
}

TEST(Approval, EachAttackIsDeniedByItsName) {
  const People p;
  const Operation operation = p.ask();
  const Approval a = approve(operation, p.ada), b = approve(operation, p.ben);
  const ApprovalRules rules = p.rules();
  ASSERT_EQ(denied(operation, {a, b}, rules), "allowed");

  EXPECT_EQ(denied(operation, {}, rules), "too_few");
  EXPECT_EQ(denied(operation, {a}, rules), "too_few");
  EXPECT_EQ(denied(operation, {a, a}, rules), "duplicate_approver");
  EXPECT_EQ(denied(operation, {a, b, approve(operation, p.eve)}, rules), "unknown_approver");

  ApprovalRules late = rules;
  late.now = operation.expires;
  EXPECT_EQ(denied(operation, {a, b}, late), "expired");
  late.now = operation.expires - 1;
  EXPECT_EQ(denied(operation, {a, b}, late), "allowed");
  late.now = operation.created - 301;
  EXPECT_EQ(denied(operation, {a, b}, late), "expired");

  ApprovalRules replay = rules;
  replay.used_nonces.insert(operation.nonce);
  EXPECT_EQ(denied(operation, {a, b}, replay), "replayed");

  ApprovalRules left = rules;
  left.approvers.pop_back();
  EXPECT_EQ(denied(operation, {a, b}, left), "unknown_approver");

  // Another key under the id of an approver.
  Approval stolen = approve(operation, p.eve);
  stolen.approver = p.ben.public_key().id();
  EXPECT_EQ(denied(operation, {a, stolen}, rules), "altered");
}

TEST(Approval, NobodyApprovesWhatTheyAskFor) {
  const People p;
  Operation operation = p.ask();
  operation.requester = p.ada.public_key().id();
  EXPECT_EQ(denied(operation, {approve(operation, p.ada), approve(operation, p.ben)}, p.rules()), "self_approval");
}

TEST(Approval, EveryFieldIsUnderTheSignature) {
  const People p;
  const Operation operation = p.ask();
  const std::vector<Approval> approvals{approve(operation, p.ada), approve(operation, p.ben)};
  const auto altered = [&](auto change) {
    Operation other = operation;
    change(other);
    std::vector<Approval> moved = approvals;
    EXPECT_EQ(denied(other, moved, p.rules()), "altered");
    for (Approval& approval : moved) approval.operation = approve(other, p.eve).operation;
    EXPECT_EQ(denied(other, moved, p.rules()), "altered");
  };
  altered([](Operation& o) { o.action = "export"; });
  altered([](Operation& o) { o.scope["dataset"] = "all"; });
  altered([](Operation& o) { o.scope["more"] = ""; });
  altered([](Operation& o) { o.scope.erase("generation"); });
  altered([](Operation& o) { o.reason += "."; });
  altered([](Operation& o) { o.requester = std::string(32, '0'); });
  altered([](Operation& o) { o.nonce = std::string(32, '0'); });
  altered([](Operation& o) { o.created -= 1; });
  altered([](Operation& o) { o.expires += 1; });
}

TEST(Approval, ScopeMustBeThatOfTheDeed) {
  const People p;
  const Operation operation = p.ask();
  const std::string& requester = operation.requester;
  EXPECT_NO_THROW(check_scope(operation, "shred", operation.scope, requester));
  EXPECT_THROW(check_scope(operation, "export", operation.scope, requester), Denied);
  EXPECT_THROW(check_scope(operation, "shred", {{"dataset", "icu"}}, requester), Denied);
  EXPECT_THROW(check_scope(operation, "shred", operation.scope, p.ada.public_key().id()), Denied);
}

TEST(Approval, TextsComeBackAndHaveOneSpelling) {
  const People p;
  const Operation operation = make_operation("shred", {{"dataset", "Röntgen \"2026\" \\ 😀"}}, "ü",
                                             p.requester.public_key().id(), 1);
  const std::string text = to_text(operation);
  EXPECT_EQ(operation_from(text), operation);
  EXPECT_EQ(operation_from(text + "\r\n"), operation);
  EXPECT_TRUE(text.starts_with(R"({"action":"shred","created":"20)")) << text;
  const Approval approval = approve(operation, p.ada);
  EXPECT_EQ(approval_from(to_text(approval)), approval);

  const auto with = [&](const std::string& from, const std::string& to) {
    std::string other = text;
    return other.replace(other.find(from), from.size(), to);
  };
  for (const std::string& bad :
       {std::string(), std::string("{}"), std::string("[]"), " " + text, text + "x", with("\"action\"", " \"action\""),
        with("ü", "\\u00fc"), with("{\"action\":\"shred\"", "{\"action\":\"export\",\"action\":\"shred\""),
        with("operation 1", "operation 2"), with("\"shred\"", "\"Shred\""), with("\"shred\"", "7"),
        with("\"scope\":{", "\"scope\":{\"a\":{},"), with("\"scope\":{", "\"extra\":1,\"scope\":{"),
        std::string(200'000, '['), std::string("\xFF")}) {
    EXPECT_THROW(operation_from(bad), InvalidArgument) << bad.substr(0, 200);
  }
  EXPECT_THROW(approval_from(text), InvalidArgument);
  EXPECT_THROW(approval_from("{}"), InvalidArgument);
}

TEST(Approval, FieldsOutsideTheirDomainAreRefused) {
  const std::string id(32, 'a');
  EXPECT_NO_THROW(make_operation("shred", {}, "r", id, 30 * 24 * 3600));
  EXPECT_THROW(make_operation("", {}, "r", id, 60), InvalidArgument);
  EXPECT_THROW(make_operation("shred", {}, "", id, 60), InvalidArgument);
  EXPECT_THROW(make_operation("shred", {}, "a\nb", id, 60), InvalidArgument);
  EXPECT_THROW(make_operation("shred", {}, "r", "ada", 60), InvalidArgument);
  EXPECT_THROW(make_operation("shred", {}, "r", id, 0), InvalidArgument);
  EXPECT_THROW(make_operation("shred", {}, "r", id, 30 * 24 * 3600 + 1), InvalidArgument);
  EXPECT_THROW(make_operation("shred", {{"Data set", "x"}}, "r", id, 60), InvalidArgument);
  EXPECT_THROW(make_operation("shred", {{"a", "x\n"}}, "r", id, 60), InvalidArgument);
  EXPECT_THROW(check_approvals(make_operation("shred", {}, "r", id, 60), {}, {{}, 0, utc_now(), {}}), InvalidArgument);
}

TEST(UtcTime, ReadsWhatItWrites) {
  for (std::int64_t seconds : {std::int64_t{0}, std::int64_t{951782400}, std::int64_t{4102444800}, utc_now()}) {
    EXPECT_EQ(utc_seconds(utc_text(seconds)), seconds);
  }
  EXPECT_EQ(utc_text(951782400), "2000-02-29T00:00:00Z");
  for (const char* bad : {"", "2026-02-31T00:00:00Z", "2026-01-01T24:00:00Z", "2026-01-01 00:00:00Z",
                          "2026-01-01T00:00:00+00:00", "2026-01-01T00:00:60Z", "1969-12-31T23:59:59Z"}) {
    EXPECT_FALSE(utc_seconds(bad)) << bad;
  }
  EXPECT_THROW(utc_text(-1), InvalidArgument);
}

}  // namespace
}  // namespace hushgrad
