// Every law of batches in the native loop: what is drawn, what is charged for it, what a step makes of it, and what is refused.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>
#include <vector>

#include "accounting/accountants/accountant.h"
#include "dpcore/error.h"
#include "torch_ext/privacy_engine.h"

namespace hushgrad {
namespace {

using torch::Tensor;
namespace nn = torch::nn;
using Rows = std::vector<std::int64_t>;

constexpr std::int64_t kRows = 60, kBatch = 12, kUsers = 20;
constexpr double kDelta = 1e-5;
const std::vector<Sampling> kLaws{Sampling::poisson,  Sampling::truncated_poisson, Sampling::fixed_size, Sampling::random_allocation,
                                  Sampling::shuffled, Sampling::sequential,        Sampling::users};

Rows numbers(const Tensor& rows) { return {rows.data_ptr<std::int64_t>(), rows.data_ptr<std::int64_t>() + rows.numel()}; }

/// Twenty users, of three rows each.
Rows three_each() {
  Rows owners;
  for (std::int64_t row = 0; row < kRows; ++row) owners.push_back(row / 3);
  return owners;
}

class NativeLoop : public testing::Test {
 protected:
  void SetUp() override {
    torch::manual_seed(3);
    x_ = torch::randn({kRows, 1});
    y_ = torch::randn({kRows, 1});
  }

  static MakePrivateOptions options(Sampling sampling, double noise_multiplier = 2.0) {
    MakePrivateOptions chosen{.noise_multiplier = noise_multiplier, .dataset_size = kRows, .expected_batch_size = kBatch, .sampling = sampling};
    if (sampling == Sampling::users) {
      chosen.owners = three_each();
      chosen.max_records_per_user = 2;
    }
    return chosen;
  }

  void make_private(const MakePrivateOptions& options) { engine_.make_private(model_->named_parameters(), optimizer_, options); }

  void part(const Tensor& rows, std::int64_t size) {
    const Tensor output = model_->forward(x_.index_select(0, rows));
    engine_.watch(output, size);
    engine_.backward(nn::functional::mse_loss(output, y_.index_select(0, rows)));
    engine_.accumulate();
  }

  Tensor one_step() {
    const Tensor rows = engine_.next_batch();
    if (law_ == Sampling::users) {
      for (const UserPart& users : engine_.user_parts()) part(users.rows, users.users);
    } else {
      part(rows, rows.size(0));
    }
    engine_.step();
    return rows;
  }

  std::vector<Rows> epoch() {
    std::vector<Rows> batches;
    for (std::int64_t i = 0; i < engine_.steps_per_epoch(); ++i) batches.push_back(numbers(one_step()));
    return batches;
  }

  std::vector<std::string> charges() const {
    std::vector<std::string> events;
    for (const StepRecord& step : engine_.ledger()->steps("icu")) events.push_back(step.event.to_json());
    return events;
  }

  Sampling law_ = Sampling::poisson;
  Tensor x_, y_;
  nn::Linear model_{1, 1};
  torch::optim::SGD optimizer_{model_->parameters(), 1.0};
  PrivacyEngine engine_{{.ledger = ":memory:", .dataset = "icu"}};
};

/// Tests of single laws.
class NativeLaw : public NativeLoop {};
/// The same of every law.
class NativeBatches : public NativeLoop, public testing::WithParamInterface<Sampling> {
 protected:
  void SetUp() override {
    NativeLoop::SetUp();
    law_ = GetParam();
  }
};

INSTANTIATE_TEST_SUITE_P(Every, NativeBatches, testing::ValuesIn(kLaws), [](const auto& info) { return std::string(name_of(info.param)); });

// The file holds what one epoch of the same plan is charged as; tests/python/test_samplings.py holds Python's engine against it too.
TEST_P(NativeBatches, IsChargedAsInPython) {
  std::ifstream file(std::string(HUSHGRAD_SOURCE_DIR) + "/tests/charges_of_laws.json");
  const nlohmann::json golden = nlohmann::json::parse(file).at(std::string(name_of(GetParam())));
  make_private(options(GetParam()));
  std::vector<std::string> expected;
  for (int i = 0; i < 3; ++i) {
    epoch();
    expected.insert(expected.end(), golden.at("charges").get<std::size_t>(), golden.at("event").dump());
  }
  engine_.finish();
  EXPECT_EQ(charges(), expected);
  EXPECT_EQ(engine_.steps(), 3 * engine_.steps_per_epoch());
  EXPECT_EQ(engine_.steps_per_epoch(), GetParam() == Sampling::users ? 2 : 5);
}

TEST_P(NativeBatches, IsChargedBeforeTheFirstStep) {
  make_private(options(GetParam()));
  engine_.next_batch();
  EXPECT_TRUE(charges().empty()) << "drawing releases nothing";
  engine_.ledger()->set_budget("icu", 0.001, kDelta);
  const Tensor before = model_->weight.detach().clone();
  EXPECT_THROW(one_step(), BudgetExceeded);
  EXPECT_TRUE(before.equal(model_->weight));
  EXPECT_TRUE(charges().empty());
}

TEST_P(NativeBatches, MeetsATarget) {
  engine_.make_private_with_epsilon(model_->named_parameters(), optimizer_, options(GetParam(), 0),
                                    {.target_epsilon = 2, .target_delta = kDelta, .epochs = 3});
  for (int i = 0; i < 3; ++i) epoch();
  EXPECT_LE(engine_.get_epsilon(kDelta), 2);
  EXPECT_GT(engine_.get_epsilon(kDelta), 1.97);
}

TEST_P(NativeBatches, HoldsNoRowTwiceAndRowsOfTheDataOnly) {
  make_private(options(GetParam()));
  for (int i = 0; i < 200; ++i) {
    const Rows rows = numbers(engine_.next_batch());
    EXPECT_EQ(std::set<std::int64_t>(rows.begin(), rows.end()).size(), rows.size());
    for (const std::int64_t row : rows) ASSERT_TRUE(row >= 0 && row < kRows);
  }
}

// A step is the clipped sum over what is charged as one: rows, or users with all of their rows in the batch.
TEST_P(NativeBatches, WithoutNoiseAStepIsTheClippedMean) {
  MakePrivateOptions chosen = options(GetParam(), 0);
  chosen.max_grad_norm = 0.7;
  std::vector<std::vector<Tensor>> gradients;  // [row]
  for (std::int64_t row = 0; row < kRows; ++row) {
    const Tensor one = torch::tensor({row});
    gradients.push_back(torch::autograd::grad({nn::functional::mse_loss(model_->forward(x_.index_select(0, one)), y_.index_select(0, one))},
                                              model_->parameters()));
  }
  make_private(chosen);
  const Tensor weight = model_->weight.detach().clone(), bias = model_->bias.detach().clone();
  const Rows rows = numbers(one_step());
  std::map<std::int64_t, std::pair<double, double>> sums;
  std::map<std::int64_t, double> counts;
  for (const std::int64_t row : rows) {
    const std::int64_t unit = GetParam() == Sampling::users ? row / 3 : row;
    sums[unit].first += gradients[row][0].item<double>();
    sums[unit].second += gradients[row][1].item<double>();
    ++counts[unit];
  }
  double of_weight = 0, of_bias = 0;
  for (const auto& [unit, sum] : sums) {
    const double w = sum.first / counts[unit], b = sum.second / counts[unit], factor = std::min(1.0, 0.7 / std::hypot(w, b));
    of_weight += factor * w;
    of_bias += factor * b;
  }
  EXPECT_NEAR((weight - model_->weight).item<double>(), of_weight / kBatch, 1e-6);
  EXPECT_NEAR((bias - model_->bias).item<double>(), of_bias / kBatch, 1e-6);
}

TEST_F(NativeLaw, TruncatedPoissonIsCutWhereItSays) {
  MakePrivateOptions chosen = options(Sampling::truncated_poisson);
  chosen.max_batch_size = 13;
  make_private(chosen);
  std::map<std::int64_t, int> sizes;
  for (int i = 0; i < 400; ++i) ++sizes[engine_.next_batch().size(0)];
  EXPECT_EQ(sizes.rbegin()->first, 13);
  EXPECT_GT(sizes[13], 80) << "a third of Binomial(60, 1/5) is above";  // 80: seven deviations
  EXPECT_GT(sizes.size(), 4u);
}

TEST_F(NativeLaw, FixedSizeIsFixed) {
  make_private(options(Sampling::fixed_size));
  std::set<Rows> different;
  for (int i = 0; i < 50; ++i) {
    const Rows rows = numbers(engine_.next_batch());
    EXPECT_EQ(rows.size(), static_cast<std::size_t>(kBatch));
    different.insert(rows);
  }
  EXPECT_EQ(different.size(), 50u);
}

TEST_F(NativeLaw, EpochsHoldEveryRowOnce) {
  for (const Sampling sampling : {Sampling::random_allocation, Sampling::shuffled, Sampling::sequential}) {
    PrivacyEngine engine({.ledger = ":memory:", .dataset = "icu"});
    MakePrivateOptions chosen = options(sampling);
    chosen.dataset_size = kRows + 2;  // the last batch of an order is smaller
    torch::optim::SGD optimizer(model_->parameters(), 1.0);
    engine.make_private(model_->named_parameters(), optimizer, chosen);
    EXPECT_EQ(engine.steps_per_epoch(), 6);
    Rows expected(kRows + 2);
    std::iota(expected.begin(), expected.end(), 0);
    std::set<Rows> orders;
    for (int epoch = 0; epoch < 3; ++epoch) {
      Rows all;
      for (int step = 0; step < 6; ++step) {
        const Rows rows = numbers(engine.next_batch());
        if (sampling != Sampling::random_allocation) EXPECT_EQ(rows.size(), step < 5 ? 12u : 2u);
        all.insert(all.end(), rows.begin(), rows.end());
      }
      orders.insert(all);
      std::sort(all.begin(), all.end());
      EXPECT_EQ(all, expected);
    }
    EXPECT_EQ(orders.size(), sampling == Sampling::sequential ? 1u : 3u);
  }
}

// Of half an epoch the whole is spent; the noise that changes within it is charged on top; the next epoch anew.
TEST_F(NativeLaw, AnEpochIsChargedOnceHoweverFarItGoes) {
  make_private(options(Sampling::shuffled));
  const auto step = [&] {
    const Tensor rows = engine_.next_batch();
    part(rows, rows.size(0));
    engine_.step();
  };
  step();
  EXPECT_EQ(charges().size(), 1u);
  engine_.next_batch();  // dropped
  step();
  EXPECT_EQ(charges().size(), 1u);
  engine_.set_noise_multiplier(1.0);
  step();
  step();
  EXPECT_EQ(charges().size(), 2u);
  EXPECT_NE(charges()[0], charges()[1]);
  step();
  EXPECT_EQ(charges().size(), 3u);
}

TEST_F(NativeLaw, UsersComeWithABoundedNumberOfTheirRows) {
  MakePrivateOptions chosen = options(Sampling::users);
  chosen.owners.assign(kRows, 0);  // user 0 has forty rows, 100 to 119 one each
  for (std::int64_t i = 0; i < 20; ++i) chosen.owners[40 + i] = 100 + i;
  chosen.max_records_per_user = 3;
  make_private(chosen);
  EXPECT_EQ(engine_.steps_per_epoch(), 2);
  std::set<Rows> of_the_first;
  for (int i = 0; i < 100; ++i) {
    const Rows rows = numbers(engine_.next_batch());
    const Rows& sizes = engine_.user_sizes();
    EXPECT_TRUE(std::is_sorted(sizes.begin(), sizes.end()));
    ASSERT_EQ(std::accumulate(sizes.begin(), sizes.end(), std::int64_t{0}), static_cast<std::int64_t>(rows.size()));
    Rows large;
    for (const std::int64_t row : rows) {
      if (row < 40) large.push_back(row);
    }
    if (large.empty()) continue;
    EXPECT_EQ(large.size(), 3u);
    EXPECT_EQ(sizes.back(), 3);
    EXPECT_EQ(Rows(rows.end() - 3, rows.end()), large) << "rows of a user stay together";
    of_the_first.insert(large);
    const auto parts = engine_.user_parts();
    ASSERT_EQ(parts.size(), sizes.size() > 1 ? 2u : 1u);
    EXPECT_EQ(parts.back().users, 1);
    EXPECT_EQ(numbers(parts.back().rows), large);
  }
  EXPECT_GT(of_the_first.size(), 30u) << "chosen anew each time";
}

TEST_F(NativeLaw, UsersAreSplitBetweenUsersOnly) {
  make_private(options(Sampling::users));
  while (engine_.next_batch().size(0) < 10) continue;
  const auto users = static_cast<std::int64_t>(engine_.user_sizes().size());
  std::int64_t seen = 0;
  for (const UserPart& one : engine_.user_parts(2)) {
    EXPECT_LE(one.users, 2);
    EXPECT_EQ(one.rows.size(0), 2 * one.users);
    part(one.rows, one.users);
    seen += one.users;
  }
  EXPECT_EQ(seen, users);
  engine_.step();
  EXPECT_EQ(engine_.steps(), 1);
  EXPECT_THROW(engine_.user_parts(), InvalidState) << "the batch is over";
}

// Rows counted as users, users of different sizes in one part, or half a user: clipping would bound less than a user.
TEST_F(NativeLaw, PartsThatAreNotUsersAreRefused) {
  MakePrivateOptions chosen = options(Sampling::users);
  chosen.expected_batch_size = 2;
  chosen.dataset_size = 5;
  chosen.owners = {0, 0, 0, 1, 2};
  chosen.max_records_per_user = 3;
  make_private(chosen);
  while (engine_.user_sizes() != Rows{1, 1, 3}) engine_.next_batch();
  const auto parts = engine_.user_parts();
  ASSERT_EQ(parts.size(), 2u);
  EXPECT_THROW(part(torch::arange(5), 5), InvalidArgument) << "rows, not users";
  EXPECT_THROW(part(torch::arange(5), 3), InvalidArgument) << "of different sizes";
  part(parts[0].rows, 2);
  EXPECT_THROW(part(torch::arange(3), 3), InvalidArgument) << "a user's rows as three users";
  EXPECT_THROW(part(torch::arange(2), 1), InvalidArgument) << "some of a user's rows";
  EXPECT_THROW(engine_.user_parts(0), InvalidArgument);
  EXPECT_EQ(engine_.steps(), 0);
}

TEST_F(NativeLaw, EmptyBatchesAreChargedStepsOfNoise) {
  for (const Sampling sampling : {Sampling::poisson, Sampling::truncated_poisson, Sampling::random_allocation, Sampling::users}) {
    PrivacyEngine engine({.ledger = ":memory:", .dataset = "icu"});
    MakePrivateOptions chosen = options(sampling);
    chosen.expected_batch_size = 1;
    torch::optim::SGD optimizer(model_->parameters(), 1.0);
    engine.make_private(model_->named_parameters(), optimizer, chosen);
    int empty = 0;
    for (int i = 0; i < 60; ++i) {
      const Tensor rows = engine.next_batch(), before = model_->weight.detach().clone();
      empty += rows.size(0) == 0;
      const std::int64_t size = sampling == Sampling::users ? static_cast<std::int64_t>(engine.user_sizes().size()) : rows.size(0);
      const Tensor output = model_->forward(x_.index_select(0, rows));
      engine.watch(output, size);
      nn::functional::mse_loss(output, y_.index_select(0, rows)).backward();
      engine.step();
      EXPECT_FALSE(before.equal(model_->weight));
      EXPECT_TRUE(model_->weight.isfinite().all().item<bool>());
    }
    EXPECT_GT(empty, 3) << name_of(sampling);  // a third of them is expected
    EXPECT_EQ(engine.steps(), 60);
    engine.finish();
    if (sampling != Sampling::random_allocation) EXPECT_EQ(engine.ledger()->steps("icu").size(), 60u);
  }
}

TEST_F(NativeLaw, OptionsThatDoNotFitTheLawAreRefused) {
  const auto refused = [&](const char* what, MakePrivateOptions bad) {
    EXPECT_THROW(make_private(bad), InvalidArgument) << what;
    EXPECT_TRUE(engine_.ledger()->runs().empty());
  };
  MakePrivateOptions bad = options(Sampling::poisson);
  bad.max_batch_size = 20;
  refused("a limit that nothing reads", bad);
  bad = options(Sampling::truncated_poisson);
  bad.max_batch_size = kBatch - 1;
  refused("a limit below the batch size", bad);
  bad = options(Sampling::poisson);
  bad.owners = three_each();
  refused("owners that nothing reads", bad);
  bad = options(Sampling::shuffled);
  bad.max_records_per_user = 2;
  refused("a bound that nothing reads", bad);
  bad = options(Sampling::users);
  bad.owners.pop_back();
  refused("a row without an owner", bad);
  bad = options(Sampling::users);
  bad.max_records_per_user = 0;
  refused("no bound", bad);
  bad = options(Sampling::users);
  bad.expected_batch_size = kUsers + 1;
  refused("more users than there are", bad);
  make_private(options(Sampling::poisson));
  engine_.next_batch();
  EXPECT_THROW(engine_.user_parts(), InvalidState);
}

// Without epochs there is nothing to calibrate for; training without noise is not what was asked.
TEST_F(NativeLaw, ATargetWithoutEpochsIsRefused) {
  for (const TargetOptions& bad : {TargetOptions{.target_epsilon = 2, .target_delta = kDelta}, TargetOptions{.target_delta = kDelta, .epochs = 1},
                                   TargetOptions{.target_epsilon = 2, .epochs = 1},
                                   TargetOptions{.target_epsilon = std::nan(""), .target_delta = kDelta, .epochs = 1}}) {
    EXPECT_THROW(engine_.make_private_with_epsilon(model_->named_parameters(), optimizer_, options(Sampling::poisson, 0), bad), InvalidArgument);
    EXPECT_TRUE(engine_.ledger()->runs().empty());
  }
}

TEST_F(NativeLaw, ExactNoiseIsChargedWithoutItsPrecision) {
  MakePrivateOptions chosen = options(Sampling::poisson);
  chosen.noise = NoiseSampler::exact;
  make_private(chosen);
  const Tensor rows = engine_.next_batch();
  part(rows, rows.size(0));
  engine_.step();
  EXPECT_EQ(charges(), std::vector<std::string>{Event::poisson_sampled(SamplingRate(1, 5).charged(), Event::gaussian(2.0)).to_json()});
}

}  // namespace
}  // namespace hushgrad
