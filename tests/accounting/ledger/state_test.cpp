#include "accounting/ledger/state.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "accounting/ledger/payload.h"
#include "accounting/ledger/schema.h"

namespace hushgrad::ledger {
namespace {

const std::string kRunId(32, 'a');
const Event kStep = Event::gaussian(1);

// Builds well-linked entries, so that only their meaning can be wrong.
class Chain {
 public:
  template <typename Payload>
  std::string add(std::string_view kind, const Payload& payload, std::int64_t time = 0) {
    Entry entry{state.sequence + 1, time == 0 ? ++clock_ : time, std::string(kind), encode(payload), state.hash, {}};
    entry.hash = entry_hash(entry);
    return state.apply(entry);
  }
  void begin() {
    EXPECT_EQ(add(kGenesis, GenesisPayload{kRunId, 1}), "");
    EXPECT_EQ(add(kRun, RunPayload{kRunId, {"d", "", "", "{}"}}), "");
    EXPECT_EQ(add(kEvent, EventPayload{kRunId, kStep}), "");
  }

  State state;

 private:
  std::int64_t clock_ = 100;
};

TEST(LedgerState, CountsChargesPerRunAndDataset) {
  Chain chain;
  chain.begin();
  EXPECT_EQ(chain.add(kCharge, ChargePayload{3}), "");
  EXPECT_EQ(chain.add(kCharge, ChargePayload{3}), "");
  EXPECT_EQ(chain.state.find_dataset("d")->whole().tally.composed(), Event::composed({Event::self_composed(kStep, 2)}));
  EXPECT_EQ(chain.state.find_run(kRunId)->record.steps, 2);
  EXPECT_EQ(chain.state.find_run("x"), nullptr);
}

TEST(LedgerState, EntriesThatMakeNoSenseAreNamed) {
  using Case = std::string (*)(Chain&);
  const std::vector<Case> cases = {
      [](Chain& c) { return c.add(kGenesis, GenesisPayload{kRunId, 1}); },
      [](Chain& c) { return c.add("void", ChargePayload{3}); },
      [](Chain& c) { return c.add(kCharge, ChargePayload{2}); },
      [](Chain& c) { return c.add(kCharge, ChargePayload{4}); },
      [](Chain& c) { return c.add(kCharge, FinishPayload{kRunId, "failed"}); },
      [](Chain& c) { return c.add(kEvent, EventPayload{kRunId, kStep}); },
      [](Chain& c) { return c.add(kEvent, EventPayload{std::string(32, 'b'), kStep}); },
      [](Chain& c) { return c.add(kRun, RunPayload{kRunId, {"d", "", "", "{}"}}); },
      [](Chain& c) { return c.add(kRun, RunPayload{std::string(32, 'b'), {"", "", "", "{}"}}); },
      [](Chain& c) { return c.add(kRefusal, RefusalPayload{kRunId, 3, kStep}); },
      [](Chain& c) { return c.add(kFinish, FinishPayload{std::string(32, 'b'), "failed"}); },
      [](Chain& c) { return c.add(kFinish, FinishPayload{kRunId, "refunded"}); },
      [](Chain& c) { return c.add(kBudget, BudgetLimit{"d", -1, 0.1}); },
      [](Chain& c) { return c.add(kCharge, ChargePayload{3}, 1); },  // before the entry before it
  };
  for (std::size_t i = 0; i < cases.size(); ++i) {
    Chain chain;
    chain.begin();
    EXPECT_NE(cases[i](chain), "") << i;
    EXPECT_EQ(chain.state.sequence, 3) << i;
  }
}

TEST(LedgerState, TheFirstEntryIsTheGenesisOfAKnownSchema) {
  EXPECT_NE(Chain().add(kRun, RunPayload{kRunId, {"d", "", "", "{}"}}), "");
  EXPECT_NE(Chain().add(kGenesis, GenesisPayload{kRunId, kSchemaVersion + 1}), "");
  EXPECT_NE(Chain().add(kGenesis, GenesisPayload{"short", 1}), "");
}

TEST(LedgerState, AFinishedRunTakesNoMore) {
  Chain chain;
  chain.begin();
  EXPECT_EQ(chain.add(kFinish, FinishPayload{kRunId, "failed"}), "");
  Chain again = chain;
  EXPECT_NE(again.add(kCharge, ChargePayload{3}), "");
  EXPECT_NE(chain.add(kFinish, FinishPayload{kRunId, "failed"}), "");
}

TEST(LedgerState, BrokenLinksAreNamed) {
  Chain chain;
  chain.begin();
  const auto fault = [&](auto&& spoil) {
    Entry entry{4, 1'000, std::string(kCharge), encode(ChargePayload{3}), chain.state.hash, {}};
    entry.hash = entry_hash(entry);
    spoil(entry);
    State copy = chain.state;
    return copy.apply(entry);
  };
  EXPECT_EQ(fault([](Entry&) {}), "");
  EXPECT_NE(fault([](Entry& e) { e.sequence = 5; e.hash = entry_hash(e); }), "");
  EXPECT_NE(fault([](Entry& e) { e.sequence = 3; e.hash = entry_hash(e); }), "");
  EXPECT_NE(fault([](Entry& e) { e.previous[0] ^= 1; e.hash = entry_hash(e); }), "");
  EXPECT_NE(fault([](Entry& e) { e.hash[47] ^= 1; }), "");
  EXPECT_NE(fault([](Entry& e) { e.payload = R"({"event": 3})"; }), "");
  EXPECT_EQ(fault([](Entry& e) { e.time = kLatestTime; e.hash = entry_hash(e); }), "");
  EXPECT_NE(fault([](Entry& e) { e.time = kLatestTime + 1; e.hash = entry_hash(e); }), "");
  EXPECT_NE(fault([](Entry& e) { e.time = INT64_MAX; e.hash = entry_hash(e); }), "");
  EXPECT_NE(fault([](Entry& e) { e.time = -1; e.hash = entry_hash(e); }), "");
}

}  // namespace
}  // namespace hushgrad::ledger
