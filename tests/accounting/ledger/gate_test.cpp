#include "accounting/ledger/gate.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "accounting/accountants/accountant.h"
#include "dpcore/error.h"

namespace hushgrad::ledger {
namespace {

// Asks the gate as the ledger does, and counts how often the accountant has to be asked.
class Dataset {
 public:
  explicit Dataset(Budget budget) : budget_(budget) {}

  bool charge(const Event& event) {
    const std::string key = event.to_json();
    if (!gate_.allows(key)) {
      ++queries;
      gate_.refill(history(), event, key, budget_);
    }
    if (!gate_.allows(key)) return false;
    foreign_charge(event);
    return true;
  }

  void foreign_charge(const Event& event) {
    gate_.spend(event, event.to_json());
    events_.push_back(event);
  }

  Event history() const { return Event::composed(events_); }
  double spent() const { return epsilon(history(), budget_.delta).upper; }
  double spent_after(const Event& event) const {
    return epsilon(Event::composed({history(), event}), budget_.delta).upper;
  }

  int queries = 0;

 private:
  Budget budget_;
  BudgetGate gate_;
  std::vector<Event> events_;
};

constexpr Budget kBudget{2.0, 1e-5, 1, 1};

TEST(BudgetGate, OneEventIsAllowedExactlyAsOftenAsItFits) {
  Dataset dataset(kBudget);
  const Event event = Event::gaussian(20);
  int charges = 0;
  while (charges < 500 && dataset.charge(event)) ++charges;
  EXPECT_GT(charges, 10);
  EXPECT_LE(dataset.spent(), kBudget.epsilon);
  EXPECT_GT(dataset.spent_after(event), kBudget.epsilon);
  EXPECT_LE(dataset.queries, 2);
}

TEST(BudgetGate, MixedEventsNeverPassTheBudgetAndAreRefusedOnlyWhenTheyDoNotFit) {
  const std::vector<Event> events = {Event::gaussian(20), Event::gaussian(30), Event::gaussian(45)};
  for (std::uint32_t seed = 0; seed < 8; ++seed) {
    std::mt19937 random(seed);
    Dataset dataset(kBudget);
    int charges = 0;
    for (int refused = 0; refused < 6 && charges < 500;) {
      const Event& event = events[random() % events.size()];
      if (dataset.charge(event)) {
        ++charges;
        EXPECT_LE(dataset.spent(), kBudget.epsilon) << seed;
      } else {
        ++refused;
        EXPECT_GT(dataset.spent_after(event), kBudget.epsilon) << seed;
      }
    }
    EXPECT_GT(charges, 10);
    EXPECT_LT(dataset.queries, charges) << seed;
  }
}

TEST(BudgetGate, ChargesOfOthersUseUpTheAllowance) {
  Dataset dataset(kBudget);
  const Event own = Event::gaussian(20);
  ASSERT_TRUE(dataset.charge(own));
  while (dataset.spent_after(own) <= kBudget.epsilon) dataset.foreign_charge(own);
  EXPECT_FALSE(dataset.charge(own));
}

TEST(BudgetGate, AnUnforeseenChargeEndsEveryAllowance) {
  Dataset dataset(kBudget);
  const Event own = Event::gaussian(20);
  ASSERT_TRUE(dataset.charge(own));
  dataset.foreign_charge(Event::gaussian(1));  // alone more than the budget
  EXPECT_FALSE(dataset.charge(own));
}

TEST(BudgetGate, NoNoiseNeverFits) {
  Dataset dataset(kBudget);
  EXPECT_FALSE(dataset.charge(Event::gaussian(0)));
  EXPECT_FALSE(dataset.charge(Event::non_private()));
  EXPECT_TRUE(dataset.charge(Event::gaussian(20)));
}

TEST(BudgetGate, AnEventThatNobodyCanBoundIsAnError) {
  Dataset dataset(kBudget);
  EXPECT_THROW(dataset.charge(Event::unsupported("test")), Unsupported);
  EXPECT_TRUE(dataset.charge(Event::gaussian(20)));
}

TEST(BudgetGate, ABudgetOfZeroAllowsOnlyWhatSpendsNothing) {
  Dataset dataset({0.0, 1e-5, 1, 1});
  EXPECT_TRUE(dataset.charge(Event::no_op()));
  EXPECT_FALSE(dataset.charge(Event::gaussian(100)));
}

TEST(BudgetGate, ResetForgetsEveryAllowance) {
  BudgetGate gate;
  const Event event = Event::gaussian(20);
  gate.refill(Event::composed({}), event, event.to_json(), kBudget);
  ASSERT_TRUE(gate.allows(event.to_json()));
  gate.reset();
  EXPECT_FALSE(gate.allows(event.to_json()));
}

}  // namespace
}  // namespace hushgrad::ledger
