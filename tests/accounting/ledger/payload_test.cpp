#include "accounting/ledger/payload.h"

#include <gtest/gtest.h>

#include <string>

#include "dpcore/error.h"

namespace hushgrad::ledger {
namespace {

const std::string kRunId(32, 'a');

TEST(Payload, IsCanonicalJson) {
  EXPECT_EQ(encode(GenesisPayload{kRunId, 1}), R"({"ledger":")" + kRunId + R"(","schema":1})");
  EXPECT_EQ(encode(BudgetLimit{"d", 0.1, 1e-05}), R"({"dataset":"d","delta":1e-05,"epsilon":0.1})");
  EXPECT_EQ(encode(ChargePayload{7}), R"({"event":7})");
  EXPECT_EQ(encode(FinishPayload{kRunId, "failed"}), R"({"run":")" + kRunId + R"(","status":"failed"})");
  EXPECT_EQ(encode(RunPayload{kRunId, {"d", "p", "a", R"({"b":1,"a":0.5})"}}),
            R"({"actor":"a","dataset":"d","plan":{"a":0.5,"b":1},"purpose":"p","run":")" + kRunId + R"("})");
}

TEST(Payload, ReadsBackToTheSameBits) {
  for (double epsilon : {0.0, 5e-324, 0.1, 1.0 / 3, 1e308}) {
    EXPECT_EQ(decode_budget(encode(BudgetLimit{"d", epsilon, 1e-300})).epsilon, epsilon);
  }
  const Event event = Event::poisson_sampled(1.0 / 3, Event::gaussian(0.1));
  EXPECT_EQ(decode_event(encode(EventPayload{kRunId, event})).event, event);
  const RefusalPayload refusal = decode_refusal(encode(RefusalPayload{kRunId, 5, event}));
  EXPECT_EQ(refusal.event, event);
  EXPECT_EQ(refusal.budget_sequence, 5);
  const RunPayload run = decode_run(encode(RunPayload{kRunId, {"d\"\\", "p", "é", "{}"}}));
  EXPECT_EQ(run.info.dataset, "d\"\\");
  EXPECT_EQ(run.info.actor, "é");
}

TEST(Payload, MalformedTextIsRefused) {
  for (const char* text : {"", "7", "[]", "{", R"({"event":7,"x":1})", R"({"evant":7})", R"({"event":"7"})",
                           R"({"event":7.5})", R"({"event":18446744073709551615})"}) {
    EXPECT_THROW(decode_charge(text), InvalidArgument) << text;
  }
  for (const char* text : {R"({"dataset":"d","delta":0,"epsilon":1})", R"({"dataset":"d","delta":1,"epsilon":1})",
                           R"({"dataset":"d","delta":0.1,"epsilon":-1})", R"({"dataset":"","delta":0.1,"epsilon":1})",
                           R"({"dataset":"d","delta":0.1,"epsilon":1e999})"}) {
    EXPECT_THROW(decode_budget(text), InvalidArgument) << text;
  }
  EXPECT_THROW(decode_finish(R"({"run":"AB","status":"failed"})"), InvalidArgument);
  EXPECT_THROW(decode_finish(R"({"run":")" + kRunId + R"(","status":"void"})"), InvalidArgument);
}

TEST(Payload, PlanIsASmallShallowObject) {
  EXPECT_EQ(canonical_plan(""), "{}");
  EXPECT_EQ(canonical_plan(" { \"b\" : 1 , \"a\" : [1.5] } "), R"({"a":[1.5],"b":1})");
  for (const std::string& plan : {std::string("[]"), std::string("{"), std::string("nan"), std::string("{\"a\":\"\xff\"}")}) {
    EXPECT_THROW(canonical_plan(plan), InvalidArgument) << plan;
  }
  const auto nested = [](int depth) { return "{\"a\":" + std::string(depth, '[') + std::string(depth, ']') + "}"; };
  EXPECT_NO_THROW(canonical_plan(nested(60)));
  EXPECT_THROW(canonical_plan(nested(70)), InvalidArgument);
  EXPECT_THROW(canonical_plan(nested(400'000)), InvalidArgument);
  EXPECT_THROW(canonical_plan("{\"a\":\"" + std::string(1 << 20, 'x') + "\"}"), InvalidArgument);
  std::string growing = "{\"a\":[0";
  while (growing.size() < 700'000) growing += ",1e9";
  EXPECT_THROW(canonical_plan(growing + "]}"), InvalidArgument);  // 1e9 is stored as 1000000000.0
}

}  // namespace
}  // namespace hushgrad::ledger
