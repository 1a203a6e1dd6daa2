// The native training loop: what it charges, what it releases, and what it refuses.
#include "torch_ext/privacy_engine.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <set>
#include <vector>

#include "accounting/access/digest.h"
#include "accounting/access/people.h"
#include "accounting/access/run_approvals.h"
#include "accounting/accountants/accountant.h"
#include "accounting/ledger/payload.h"
#include "dpcore/error.h"
#include "dpcore/noise/precision.h"

namespace hushgrad {
namespace {

using torch::Tensor;
namespace nn = torch::nn;

constexpr std::int64_t kRows = 64, kBatch = 16;
constexpr double kDelta = 1e-3;

class Engine : public testing::Test {
 protected:
  void SetUp() override {
    torch::manual_seed(3);
    std::string folder = testing::TempDir() + "hushgrad-XXXXXX";
    ASSERT_NE(mkdtemp(folder.data()), nullptr);
    folder_ = folder;
    x_ = torch::randn({kRows, 7});
    y_ = torch::randn({kRows, 2});
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  PrivacyEngine engine(std::string ledger = ":memory:") {
    return PrivacyEngine({.ledger = std::move(ledger), .dataset = "icu"});
  }
  std::string file() const { return folder_ / "ledger.db"; }

  static MakePrivateOptions options(double noise_multiplier, double max_grad_norm = 1.0) {
    return {.noise_multiplier = noise_multiplier,
            .max_grad_norm = max_grad_norm,
            .dataset_size = kRows,
            .expected_batch_size = kBatch};
  }

  void make_private(PrivacyEngine& engine, const MakePrivateOptions& options) {
    engine.make_private(model_->named_parameters(), optimizer_, options);
  }

  Tensor loss(const Tensor& rows) {
    return nn::functional::mse_loss(model_->forward(x_.index_select(0, rows)), y_.index_select(0, rows));
  }

  void watch_and_backward(PrivacyEngine& engine, const Tensor& rows) {
    const Tensor output = model_->forward(x_.index_select(0, rows));
    engine.watch(output, rows.size(0));
    nn::functional::mse_loss(output, y_.index_select(0, rows)).backward();
  }

  Tensor one_step(PrivacyEngine& engine) {
    const Tensor rows = engine.next_batch();
    watch_and_backward(engine, rows);
    engine.step();
    return rows;
  }

  std::vector<Tensor> snapshot() const {
    std::vector<Tensor> copies;
    for (const Tensor& p : model_->parameters()) copies.push_back(p.detach().clone());
    return copies;
  }

  bool unchanged_since(const std::vector<Tensor>& before) const {
    for (std::size_t i = 0; i < before.size(); ++i) {
      if (!before[i].equal(model_->parameters()[i])) return false;
    }
    return true;
  }

  /// [row][parameter], of the loss of each row alone. Call it before the parameters are made private.
  std::vector<std::vector<Tensor>> gradients_one_by_one() {
    std::vector<std::vector<Tensor>> result;
    for (std::int64_t row = 0; row < kRows; ++row) {
      result.push_back(torch::autograd::grad({loss(torch::tensor({row}))}, model_->parameters()));
    }
    return result;
  }

  static std::vector<Tensor> clipped_sum(const std::vector<std::vector<Tensor>>& gradients,
                                         const Tensor& rows, double max_grad_norm) {
    std::vector<Tensor> sum;
    for (const Tensor& g : gradients[0]) sum.push_back(torch::zeros_like(g, torch::kDouble));
    for (std::int64_t i = 0; i < rows.size(0); ++i) {
      const auto& sample = gradients[rows[i].item<std::int64_t>()];
      double squares = 0;
      for (const Tensor& g : sample) squares += g.to(torch::kDouble).square().sum().item<double>();
      const double factor = std::min(1.0, max_grad_norm / std::sqrt(squares));
      for (std::size_t p = 0; p < sum.size(); ++p) sum[p] += factor * sample[p].to(torch::kDouble);
    }
    return sum;
  }

  /// SGD with learning rate 1: the parameters move by the gradient.
  void expect_moved_by(const std::vector<Tensor>& before, const std::vector<Tensor>& sum) {
    for (std::size_t p = 0; p < sum.size(); ++p) {
      const Tensor moved = before[p].to(torch::kDouble) - model_->parameters()[p].detach().to(torch::kDouble);
      EXPECT_LT((moved - sum[p] / kBatch).abs().max().item<double>(), 1e-6);
    }
  }

  // One ideal step as it is charged: with the distance of the fast sampler's noise from the ideal one.
  Event charged_step(double noise_multiplier) const {
    std::vector<std::size_t> sizes;
    for (const Tensor& parameter : model_->parameters()) sizes.push_back(static_cast<std::size_t>(parameter.numel()));
    const NoisePrecision precision = fast_noise_precision(noise_multiplier, sizes);
    return Event::finite_precision(Event::poisson_sampled(0.25, Event::gaussian(noise_multiplier)), precision.order,
                                   precision.divergence, precision.failure);
  }

  std::filesystem::path folder_;
  Tensor x_, y_;
  nn::Sequential model_{nn::Linear(7, 5), nn::Tanh(), nn::Linear(5, 2)};
  torch::optim::SGD optimizer_{model_->parameters(), 1.0};
};

TEST_F(Engine, EveryStepIsChargedDurably) {
  {
    PrivacyEngine engine = this->engine(file());
    make_private(engine, options(1.0));
    EXPECT_EQ(engine.steps_per_epoch(), 4);
    EXPECT_EQ(engine.get_epsilon(kDelta), 0);
    for (int i = 0; i < 6; ++i) one_step(engine);
    EXPECT_EQ(engine.steps(), 6);
    const Event six = Event::self_composed(charged_step(1.0), 6);
    EXPECT_NEAR(engine.get_epsilon(kDelta), epsilon(six, kDelta).upper, 1e-9);
    engine.finish();
  }
  const auto ledger = Ledger::open(file(), /*create=*/false);
  ASSERT_EQ(ledger->runs("icu").size(), 1u);
  EXPECT_EQ(ledger->runs("icu")[0].status, "completed");
  EXPECT_EQ(ledger->runs("icu")[0].steps, 6);
  EXPECT_EQ(ledger->steps("icu").size(), 6u);
  EXPECT_TRUE(ledger->verify().ok);
}

TEST_F(Engine, ARefusedStepChangesNothing) {
  PrivacyEngine engine = this->engine(file());
  const double budget = epsilon(Event::self_composed(charged_step(1.0), 3), kDelta).upper;
  engine.ledger()->set_budget("icu", budget, kDelta);
  make_private(engine, options(1.0));
  for (int i = 0; i < 3; ++i) one_step(engine);
  const auto before = snapshot();
  for (int i = 0; i < 2; ++i) {
    EXPECT_THROW(one_step(engine), BudgetExceeded);
    EXPECT_TRUE(unchanged_since(before));
  }
  EXPECT_EQ(engine.steps(), 3);
  EXPECT_EQ(engine.ledger()->steps("icu").size(), 3u);
  EXPECT_LE(engine.get_epsilon(kDelta), budget);
  EXPECT_THROW(engine.step(), InvalidState) << "the refused batch must not be stepped again";
}

TEST_F(Engine, WithoutNoiseAStepIsTheClippedMean) {
  const auto gradients = gradients_one_by_one();
  PrivacyEngine engine = this->engine();
  make_private(engine, options(0, 0.7));
  for (int i = 0; i < 3; ++i) {
    const auto before = snapshot();
    const Tensor rows = one_step(engine);
    if (i == 0) expect_moved_by(before, clipped_sum(gradients, rows, 0.7));
  }
  EXPECT_TRUE(std::isinf(engine.get_epsilon(kDelta)));
}

TEST_F(Engine, EveryClippingTrainsAndIsChargedAlike) {
  for (const Clipping clipping : {Clipping::flat, Clipping::per_layer, Clipping::automatic, Clipping::adaptive}) {
    torch::optim::SGD optimizer(model_->parameters(), 1.0);
    PrivacyEngine engine = this->engine();
    MakePrivateOptions chosen = options(1.0);
    chosen.clipping = clipping;
    engine.make_private(model_->named_parameters(), optimizer, chosen);
    for (int i = 0; i < 2; ++i) one_step(engine);
    // Adaptive clipping draws noise for its count too, of another precision.
    const double two = epsilon(Event::self_composed(charged_step(1.0), 2), kDelta).upper;
    EXPECT_NEAR(engine.get_epsilon(kDelta), two, clipping == Clipping::adaptive ? 1e-5 : 1e-9);
  }
}

TEST_F(Engine, BoundsAreOnePerParameterOrRefused) {
  PrivacyEngine engine = this->engine();
  MakePrivateOptions chosen = options(1.0);
  chosen.clipping = Clipping::per_layer;
  chosen.layer_norms = {1.0, 2.0};
  EXPECT_THROW(make_private(engine, chosen), InvalidArgument);
  chosen.layer_norms = {1.0, 2.0, 2.0, 4.0};
  make_private(engine, chosen);
  EXPECT_DOUBLE_EQ(engine.max_grad_norm(), 5.0);
  EXPECT_THROW(engine.set_max_grad_norm(1.0), InvalidState);
}

TEST_F(Engine, ASchedulesStepsAreChargedAsTheyAre) {
  PrivacyEngine engine = this->engine();
  make_private(engine, options(1.0));
  one_step(engine);
  engine.set_noise_multiplier(2.0);
  engine.set_max_grad_norm(0.5);
  one_step(engine);
  const Event both = Event::composed({charged_step(1.0), charged_step(2.0)});
  EXPECT_NEAR(engine.get_epsilon(kDelta), epsilon(both, kDelta).upper, 1e-9);
  EXPECT_THROW(engine.set_noise_multiplier(-1.0), InvalidArgument);
}

TEST_F(Engine, ARunTakesTheApprovalsThatItsPolicyAsksFor) {
  const ledger_test::People people;
  const auto ledger = people.found(file());
  const std::string rules = R"({"version": 1, "rule": [{"id": "two", "effect": "allow", "actions": ["train"], "require": {"approvals": 1}}]})";
  const std::string policy = ledger::canonical_plan(rules);
  ledger->publish_policy(policy, people.officer->public_key().id(), hex_of(people.officer->sign("policy", bytes_of(policy))));
  people.trainer->save(folder_ / "tom.key");
  const auto write = [&](const char* name, const std::string& text) {
    std::ofstream(folder_ / name) << text << "\n";
    return (folder_ / name).string();
  };
  const Operation operation = make_operation("train", run_scope("icu", "triage"), "a test", people.trainer->public_key().id(), 600);
  const std::string request = write("request.json", to_text(operation));
  const std::string approval = write("ann.json", to_text(approve(operation, *people.approver)));
  PrivacyEngineOptions who{.ledger = file(), .dataset = "icu", .purpose = "triage", .identity = folder_ / "tom.key"};
  const auto begin = [&] {
    PrivacyEngine engine(who);
    make_private(engine, options(1.0));
    one_step(engine);
    engine.finish();
  };
  try {
    begin();
    FAIL() << "nobody approved";
  } catch (const Denied& denied) {
    EXPECT_EQ(denied.reason(), "too_few");
    EXPECT_NE(std::string(denied.what()).find("hushgrad approve request train dataset='icu' purpose='triage'"), std::string::npos) << denied.what();
  }
  who.approvals = {request};
  EXPECT_THROW(begin(), InvalidArgument);
  who.approvals = {request, approval};
  PrivacyEngineOptions nobody = who;
  nobody.identity.clear();
  EXPECT_THROW(PrivacyEngine{nobody}, InvalidArgument);
  begin();
  const auto run = ledger->runs().back();
  EXPECT_EQ(run.info.actor, "tom");
  EXPECT_EQ(run.steps, 1);
  try {
    begin();
    FAIL() << "twice";
  } catch (const Denied& denied) {
    EXPECT_EQ(denied.reason(), "replayed");
  }
  EXPECT_TRUE(ledger->verify().ok) << ledger->verify().reason;
}

TEST_F(Engine, ACheckedBackwardRefusesALossThatCouplesSamples) {
  PrivacyEngine engine = this->engine();
  make_private(engine, options(1.0));
  const Tensor rows = engine.next_batch();
  const Tensor output = model_->forward(x_.index_select(0, rows));
  engine.watch(output, rows.size(0));
  if (rows.size(0) > 1) {
    EXPECT_THROW(engine.backward((output - output.mean(0)).square().sum()), Unsupported);
  }
  engine.backward(output.square().mean());
  engine.step();
  EXPECT_EQ(engine.steps(), 1);
}

TEST_F(Engine, VirtualBatchesAreTheSameStep) {
  const auto gradients = gradients_one_by_one();
  PrivacyEngine engine = this->engine();
  make_private(engine, options(0, 0.7));
  const auto before = snapshot();
  const Tensor rows = engine.next_batch();
  for (const Tensor& part : rows.split(5)) {
    watch_and_backward(engine, part);
    engine.accumulate();
  }
  EXPECT_TRUE(unchanged_since(before));
  engine.step();
  expect_moved_by(before, clipped_sum(gradients, rows, 0.7));
  EXPECT_EQ(engine.steps(), 1);
}

// Half a million draws of standard deviation s: their deviation is within 1 % of s but for a chance below
// 1e-22.
TEST_F(Engine, NoiseHasTheChargedDeviation) {
  nn::Linear wide(nn::LinearOptions(1000, 500).bias(false));
  torch::optim::SGD optimizer(wide->parameters(), 1.0);
  PrivacyEngine engine = this->engine();
  engine.make_private(wide->named_parameters(), optimizer, options(2.0, 0.5));
  const Tensor before = wide->weight.detach().clone();
  const Tensor rows = engine.next_batch();
  const Tensor output = wide->forward(torch::zeros({rows.size(0), 1000}));
  engine.watch(output, rows.size(0));
  output.mean().backward();
  engine.step();
  const double deviation =
      (wide->weight.detach() - before).to(torch::kDouble).square().mean().sqrt().item<double>();
  EXPECT_NEAR(deviation / (2.0 * 0.5 / kBatch), 1, 0.01);
}

TEST_F(Engine, AnEmptyBatchIsAStepOfNoise) {
  PrivacyEngine engine = this->engine();
  make_private(engine, {.noise_multiplier = 1, .dataset_size = 1000000, .expected_batch_size = 1});
  int steps = 0;
  while (engine.next_batch().size(0) > 0)
    ASSERT_LT(++steps, 100);  // e^-1 each: all 100 with chance below 1e-19
  const auto before = snapshot();
  const Tensor none = torch::empty({0}, torch::kLong);
  watch_and_backward(engine, none);
  engine.step();
  EXPECT_FALSE(unchanged_since(before));
  for (const Tensor& p : model_->parameters()) EXPECT_TRUE(p.isfinite().all().item<bool>());
  EXPECT_EQ(engine.steps(), 1);
}

// The mean size of 400 batches has standard deviation sqrt(64 * 0.25 * 0.75 / 400) = 0.17; 1.5 is beyond 8 of
// them.
TEST_F(Engine, BatchesArePoissonAndAscending) {
  PrivacyEngine engine = this->engine();
  make_private(engine, options(1.0));
  double total = 0;
  std::set<std::int64_t> sizes;
  for (int i = 0; i < 400; ++i) {
    const Tensor rows = engine.next_batch();
    total += static_cast<double>(rows.size(0));
    sizes.insert(rows.size(0));
    EXPECT_TRUE((rows.slice(0, 1) > rows.slice(0, 0, -1)).all().item<bool>());
    EXPECT_TRUE(((rows >= 0) & (rows < kRows)).all().item<bool>());
  }
  EXPECT_NEAR(total / 400, kBatch, 1.5);
  EXPECT_GT(sizes.size(), 5u);
}

TEST_F(Engine, ATargetIsMetAndNearlyUsedUp) {
  PrivacyEngine engine = this->engine();
  engine.make_private_with_epsilon(model_->named_parameters(), optimizer_, options(0),
                                   {.target_epsilon = 2, .target_delta = kDelta, .epochs = 2});
  for (std::int64_t i = 0; i < 2 * engine.steps_per_epoch(); ++i) one_step(engine);
  EXPECT_LE(engine.get_epsilon(kDelta), 2);
  EXPECT_GT(engine.get_epsilon(kDelta), 1.98);
}

TEST_F(Engine, CallsOutOfOrderAreRefused) {
  PrivacyEngine engine = this->engine();
  EXPECT_THROW(engine.next_batch(), InvalidState);
  EXPECT_THROW(engine.get_epsilon(kDelta), InvalidState);
  EXPECT_THROW(engine.step(), InvalidState);
  make_private(engine, options(1.0));
  EXPECT_THROW(make_private(engine, options(1.0)), InvalidState);

  const Tensor all = torch::arange(kRows);
  const Tensor output = model_->forward(x_);
  EXPECT_THROW(engine.step(), InvalidState) << "no batch";
  EXPECT_THROW(engine.watch(output, kRows), InvalidState) << "not a batch that the engine drew";

  Tensor rows = engine.next_batch();
  while (rows.size(0) < 2) rows = engine.next_batch();
  EXPECT_THROW(engine.step(), InvalidState) << "nothing watched";
  EXPECT_THROW(watch_and_backward(engine, all), InvalidArgument) << "more rows than drawn";
  const auto before = snapshot();
  watch_and_backward(engine, rows.slice(0, 0, 1));
  EXPECT_THROW(engine.watch(model_->forward(x_.index_select(0, rows)), rows.size(0)), InvalidArgument)
      << "another size in one part";
  EXPECT_THROW(engine.step(), InvalidState) << "a row is missing";
  EXPECT_TRUE(unchanged_since(before));

  rows = engine.next_batch();
  while (rows.size(0) == 0) rows = engine.next_batch();
  engine.watch(model_->forward(x_.index_select(0, rows)), rows.size(0));
  EXPECT_THROW(engine.step(), InvalidState) << "no backward pass";
  EXPECT_EQ(engine.steps(), 0);
  EXPECT_EQ(engine.ledger()->steps("icu").size(), 0u);
}

TEST_F(Engine, ValuesOutsideTheirDomainAreRefused) {
  for (const MakePrivateOptions& bad : {
           MakePrivateOptions{.noise_multiplier = -1, .dataset_size = 10, .expected_batch_size = 1},
           MakePrivateOptions{.noise_multiplier = std::nan(""), .dataset_size = 10, .expected_batch_size = 1},
           MakePrivateOptions{
               .noise_multiplier = 1, .max_grad_norm = 0, .dataset_size = 10, .expected_batch_size = 1},
           MakePrivateOptions{.noise_multiplier = 1, .dataset_size = 0, .expected_batch_size = 0},
           MakePrivateOptions{.noise_multiplier = 1, .dataset_size = 10, .expected_batch_size = 11},
       }) {
    PrivacyEngine engine = this->engine();
    EXPECT_THROW(make_private(engine, bad), InvalidArgument);
    EXPECT_TRUE(engine.ledger()->runs().empty());
  }
}

TEST_F(Engine, AnOptimizerOfOtherParametersIsRefused) {
  nn::Linear other(3, 3);
  torch::optim::SGD optimizer(other->parameters(), 1.0);
  PrivacyEngine engine = this->engine();
  EXPECT_THROW(engine.make_private(model_->named_parameters(), optimizer, options(1.0)), InvalidArgument);
}

TEST_F(Engine, AParameterWithoutOptimizerGetsNoGradient) {
  torch::optim::SGD head_only({model_->parameters()[2], model_->parameters()[3]}, 1.0);
  PrivacyEngine engine = this->engine();
  engine.make_private(model_->named_parameters(), head_only, options(1.0));
  const auto before = snapshot();
  one_step(engine);
  EXPECT_FALSE(model_->parameters()[0].grad().defined());
  EXPECT_TRUE(before[0].equal(model_->parameters()[0]));
  EXPECT_FALSE(before[2].equal(model_->parameters()[2]));
}

TEST_F(Engine, AParameterThatJoinsLaterIsRefused) {
  for (const Tensor& p : {model_->parameters()[0], model_->parameters()[1]}) p.requires_grad_(false);
  PrivacyEngine engine = this->engine();
  make_private(engine, options(1.0));
  one_step(engine);
  const auto before = snapshot();
  model_->parameters()[0].requires_grad_(
      true);  // unfrozen after make_private: its gradient is an ordinary one
  EXPECT_THROW(one_step(engine), PrivacyViolation);
  EXPECT_TRUE(unchanged_since(before));
  model_->parameters()[0].requires_grad_(false);
  EXPECT_THROW(one_step(engine), PrivacyViolation) << "its gradient is still there";
  model_->parameters()[0].mutable_grad() = Tensor();
  one_step(engine);
  EXPECT_EQ(engine.steps(), 2);
}

TEST_F(Engine, AModuleUnderTwoNamesIsOneModule) {
  nn::Linear layer(7, 7);
  struct Twice : nn::Module {
    explicit Twice(nn::Linear layer) { register_module("first", layer), register_module("second", layer); }
  } twice(layer);
  torch::optim::SGD optimizer(layer->parameters(), 1.0);
  PrivacyEngine engine = this->engine();
  engine.make_private(twice.named_parameters(), optimizer, options(1.0));
  const Tensor before = layer->weight.detach().clone(), rows = engine.next_batch();
  const Tensor output = layer(torch::tanh(layer(x_.index_select(0, rows))));
  engine.watch(output, rows.size(0));
  output.square().mean().backward();
  engine.step();
  EXPECT_FALSE(before.equal(layer->weight));
}

}  // namespace
}  // namespace hushgrad
