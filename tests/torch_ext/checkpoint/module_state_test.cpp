// Modules and optimizers in and out of sealed files.
#include "torch_ext/checkpoint/module_state.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <cmath>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>

#include "dpcore/error.h"
#include "torch_ext/privacy_engine.h"

namespace hushgrad {
namespace {

using torch::Tensor;
namespace nn = torch::nn;
namespace optim = torch::optim;

nn::Sequential make_model() {
  return nn::Sequential(
      nn::Conv1d(nn::Conv1dOptions(2, 4, 3).bias(false)),
      nn::InstanceNorm1d(nn::InstanceNorm1dOptions(4).affine(true)),  // has buffers without data
      nn::BatchNorm1d(4), nn::Flatten(), nn::Linear(20, 3));
}

void train(nn::Sequential& model, optim::Optimizer& optimizer, int steps) {
  for (int i = 0; i < steps; ++i) {
    const Tensor x = torch::linspace(-1, 1 + i, 6 * 2 * 7).reshape({6, 2, 7});
    optimizer.zero_grad();
    model->forward(x.sin()).square().mean().backward();
    optimizer.step();
  }
}

std::vector<Tensor> state_of(const nn::Sequential& model) {
  std::vector<Tensor> state = model->parameters();
  for (const Tensor& buffer : model->buffers()) state.push_back(buffer);
  return state;
}

void expect_same(const nn::Sequential& x, const nn::Sequential& y) {
  const auto a = state_of(x), b = state_of(y);
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(a[i].equal(b[i])) << i;
}

bool same(const nn::Sequential& x, const nn::Sequential& y) {
  const auto a = state_of(x), b = state_of(y);
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (!a[i].equal(b[i])) return false;
  }
  return true;
}

class Checkpoint : public testing::Test {
 protected:
  void SetUp() override {
    torch::manual_seed(5);
    std::string folder = testing::TempDir() + "hushgrad-XXXXXX";
    ASSERT_NE(mkdtemp(folder.data()), nullptr);
    folder_ = folder;
    Keyring::create(file("keyring")).create_key("icu");
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string file(const std::string& name) const { return folder_ / name; }
  PrivacyEngine engine(const std::string& ledger = "ledger.db") const {
    return PrivacyEngine({.ledger = file(ledger), .dataset = "icu", .keyring = file("keyring")});
  }

  /// Trains, saves, opens into another model whose optimizer has other settings, and trains both on.
  void expect_resumes(
      const std::function<std::unique_ptr<optim::Optimizer>(std::vector<Tensor>, bool other)>& make) {
    nn::Sequential model = make_model(), reopened = make_model();
    const auto optimizer = make(model->parameters(), false), other = make(reopened->parameters(), true);
    train(model, *optimizer, 3);
    const PrivacyEngine engine = this->engine();
    engine.save_checkpoint(file("a.sealed"), *model, optimizer.get());
    engine.load_checkpoint(file("a.sealed"), *reopened, other.get());
    expect_same(model, reopened);
    train(model, *optimizer, 2);
    train(reopened, *other, 2);
    expect_same(model, reopened);
  }

  std::filesystem::path folder_;
};

TEST_F(Checkpoint, AdamResumesBitForBit) {
  expect_resumes([](std::vector<Tensor> parameters, bool other) {
    auto options = other ? optim::AdamOptions(0.5)
                         : optim::AdamOptions(0.02).betas({0.8, 0.95}).weight_decay(0.1).amsgrad(true);
    return std::make_unique<optim::Adam>(std::move(parameters), options);
  });
}

TEST_F(Checkpoint, AdamWResumesBitForBit) {
  expect_resumes([](std::vector<Tensor> parameters, bool other) {
    auto options = other ? optim::AdamWOptions(0.5).amsgrad(true)
                         : optim::AdamWOptions(0.02).eps(1e-3).weight_decay(0.1);
    return std::make_unique<optim::AdamW>(std::move(parameters), options);
  });
}

TEST_F(Checkpoint, SgdResumesBitForBit) {
  expect_resumes([](std::vector<Tensor> parameters, bool other) {
    auto options = other ? optim::SGDOptions(0.5)
                         : optim::SGDOptions(0.02).momentum(0.9).dampening(0.1).weight_decay(0.1);
    return std::make_unique<optim::SGD>(std::move(parameters), options);
  });
}

TEST_F(Checkpoint, TheTreeIsTheDocumentedOne) {
  nn::Linear layer(2, 1);
  optim::Adam optimizer(layer->parameters(), optim::AdamOptions(0.5));
  layer->forward(torch::ones({1, 2})).sum().backward();
  optimizer.step();
  NamedTensors tensors;
  const auto tree = nlohmann::json::parse(encode_state(*layer, &optimizer, tensors));
  const auto entry = [](int i) {
    const std::string at = "optimizer/state/" + std::to_string(i) + "/";
    return R"([)" + std::to_string(i) + R"(,{"$map":[["step",{"$tensor":")" + at +
           R"(step"}],["exp_avg",{"$tensor":")" + at + R"(exp_avg"}],["exp_avg_sq",{"$tensor":")" + at +
           R"(exp_avg_sq"}]]}])";
  };
  EXPECT_EQ(tree,
            nlohmann::json::parse(R"({"format":"hushgrad.checkpoint/1","state":{"$map":[
      ["model",{"$map":[["bias",{"$tensor":"model/bias"}],["weight",{"$tensor":"model/weight"}]]}],
      ["optimizer",{"$map":[["state",{"$map":[)" +
                                  entry(0) + "," + entry(1) + R"(]}],["param_groups",[{"$map":[["lr",0.5],
        ["betas",{"$tuple":[0.9,0.999]}],["eps",1e-8],["weight_decay",0.0],["amsgrad",false],
        ["decoupled_weight_decay",false],["params",[0,1]]]}]]]}],
      ["extra",null]]}})"));
  EXPECT_EQ(tensors.size(), 2u + 2 * 3);
}

TEST_F(Checkpoint, AnotherModelIsRefusedAndLeftAlone) {
  nn::Sequential model = make_model();
  const PrivacyEngine engine = this->engine();
  engine.save_checkpoint(file("a.sealed"), *model);
  const auto expect_refused = [&](nn::Sequential other, const std::string& named) {
    std::vector<Tensor> before;
    for (const Tensor& tensor : state_of(other)) before.push_back(tensor.clone());
    try {
      engine.load_checkpoint(file("a.sealed"), *other);
      ADD_FAILURE() << named;
    } catch (const InvalidArgument& error) {
      EXPECT_NE(std::string(error.what()).find(named), std::string::npos) << error.what();
    }
    for (std::size_t i = 0; i < before.size(); ++i) EXPECT_TRUE(before[i].equal(state_of(other)[i])) << named;
  };
  nn::Sequential other_shape = make_model(), missing = make_model(), more = make_model();
  other_shape->ptr(4)->as<nn::Linear>()->weight.set_data(torch::ones({3, 21}));
  missing->ptr(4)->register_parameter("extra", torch::ones({1}));
  expect_refused(other_shape, "4.weight");
  expect_refused(missing, "4.extra");
  expect_refused(nn::Sequential(nn::Conv1d(nn::Conv1dOptions(2, 4, 3).bias(false))), "1.bias");
}

TEST_F(Checkpoint, AnotherOptimizerIsRefusedAndLeftAlone) {
  nn::Sequential model = make_model(), reopened = make_model();
  optim::Adam adam(model->parameters(), optim::AdamOptions(0.1));
  train(model, adam, 1);
  const PrivacyEngine engine = this->engine();
  engine.save_checkpoint(file("adam.sealed"), *model, &adam);
  engine.save_checkpoint(file("none.sealed"), *model);
  optim::SGD sgd(reopened->parameters(), 0.1);
  optim::AdamW adamw(reopened->parameters());
  optim::Adam fewer({reopened->parameters()[0]});
  optim::RMSprop rmsprop(reopened->parameters());
  EXPECT_THROW(engine.load_checkpoint(file("adam.sealed"), *reopened, &sgd), InvalidArgument);
  EXPECT_THROW(engine.load_checkpoint(file("adam.sealed"), *reopened, &adamw), InvalidArgument);
  EXPECT_THROW(engine.load_checkpoint(file("adam.sealed"), *reopened, &fewer), InvalidArgument);
  EXPECT_THROW(engine.load_checkpoint(file("adam.sealed"), *reopened, &rmsprop), Unsupported);
  EXPECT_THROW(engine.load_checkpoint(file("none.sealed"), *reopened, &sgd), InvalidArgument);
  EXPECT_THROW(engine.save_checkpoint(file("b.sealed"), *reopened, &rmsprop), Unsupported);
  EXPECT_FALSE(same(model, reopened));
  EXPECT_FALSE(std::filesystem::exists(file("b.sealed")));
}

TEST_F(Checkpoint, TreesThatMeanNothingAreRefusedAndChangeNothing) {
  nn::Linear layer(2, 1);
  optim::Adam optimizer(layer->parameters(), optim::AdamOptions(0.5));
  layer->forward(torch::ones({1, 2})).sum().backward();
  optimizer.step();
  NamedTensors tensors;
  const std::string good = encode_state(*layer, &optimizer, tensors);
  const Tensor weight = layer->weight.detach().clone();
  layer->weight.detach().add_(1);
  const auto refused = [&](const std::string& text, const NamedTensors& with) {
    EXPECT_THROW(decode_state({{}, text, with, ""}, *layer, &optimizer), SealError) << text.substr(0, 200);
    EXPECT_TRUE(layer->weight.equal(weight + 1));
  };
  const auto changed = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    text.replace(text.find(from), from.size(), to);
    return text;
  };
  const double infinity = std::numeric_limits<double>::infinity();
  for (const Tensor& step : {torch::full({}, infinity), torch::full({}, std::nan("")), torch::full({}, -1.0), torch::full({}, 1e30),
                             torch::ones({2}), torch::ones({0}), torch::full({}, c10::complex<double>(1, 1))}) {
    NamedTensors with = tensors;
    for (auto& [name, tensor] : with) {
      if (name.ends_with("step")) tensor = step;
    }
    refused(good, with);
  }
  refused(changed("\"hushgrad.checkpoint/1\"", "1"), tensors);
  refused(changed("[0.9,0.999]", "{\"a\":1,\"b\":2}"), tensors);
  refused(changed("[0.9,0.999]", "[0.9]"), tensors);
  refused(changed("\"lr\",0.5", "\"lr\",{\"$tensor\":\"model/weight\"}"), tensors);
  const std::string deep(1 << 20, '[');
  refused(changed("[\"extra\",null]", "[\"extra\"," + deep + std::string(1 << 20, ']') + "]"), tensors);
  NamedTensors same = tensors;
  decode_state({{}, good, same, ""}, *layer, &optimizer);
  EXPECT_TRUE(layer->weight.equal(same.front().first == "model/weight" ? same.front().second : same[1].second));
}

TEST_F(Checkpoint, WeightsAreDecryptedInTheirOwnMemory) {
  nn::Sequential model = make_model(), other = make_model();
  optim::Adam adam(model->parameters()), empty(other->parameters());
  train(model, adam, 1);
  engine().save_checkpoint(file("a.sealed"), *model, &adam);
  const Keyring keyring = Keyring::open(file("keyring"));
  const auto places = [&](const SealedReader& reader) { return places_of(reader, *other); };
  const LoadedTensors loaded = load_tensors(file("a.sealed"), keyring, {}, places);
  std::vector<Tensor> own = state_of(other);
  for (const auto& [name, tensor] : loaded.tensors) {
    if (!name.starts_with("model/")) continue;
    EXPECT_TRUE(std::any_of(own.begin(), own.end(), [&](const Tensor& t) { return t.is_same(tensor); })) << name;
  }
  EXPECT_FALSE(same(model, other));  // authenticated, and not yet filled
  const auto version = own[0]._version();
  decode_state(loaded, *other, &empty);
  expect_same(model, other);
  EXPECT_GT(own[0]._version(), version);
}

TEST_F(Checkpoint, OnlyMemoryThatNobodySharesIsWrittenDirectly) {
  const auto make = [](float fill) {
    nn::Sequential model(nn::Linear(4, 4), nn::Linear(4, 4), nn::Linear(4, 4));
    torch::NoGradGuard no_grad;
    model->ptr(1)->as<nn::Linear>()->weight.set_data(model->ptr(0)->as<nn::Linear>()->weight.data());
    model->ptr(2)->as<nn::Linear>()->weight.set_data(torch::zeros({4, 4}).t());
    for (Tensor& parameter : model->parameters()) parameter.fill_(fill);
    return model;
  };
  nn::Sequential model = make(1), other = make(2);
  other->ptr(2)->as<nn::Linear>()->bias.set_data(torch::zeros({4}, at::kDouble));
  engine().save_checkpoint(file("a.sealed"), *model);
  const SealedReader reader(file("a.sealed"), Keyring::open(file("keyring")));
  const Places places = places_of(reader, *other);
  EXPECT_EQ(places.size(), 2u);
  EXPECT_TRUE(places.contains("model/0.bias") && places.contains("model/1.bias"));
  engine().load_checkpoint(file("a.sealed"), *other);
  expect_same(model, [&] { other->to(at::kFloat); return other; }());
}

TEST_F(Checkpoint, WhatChangesBetweenTheTwoReadsGivesNothing) {
  nn::Sequential model(nn::Linear(600, 1000)), other(nn::Linear(600, 1000));
  engine().save_checkpoint(file("a.sealed"), *model);
  const auto places = [&](const SealedReader& reader) { return places_of(reader, *other); };
  const LoadedTensors loaded = load_tensors(file("a.sealed"), Keyring::open(file("keyring")), {}, places);
  std::fstream bytes(file("a.sealed"), std::ios::in | std::ios::out | std::ios::binary);
  bytes.seekp(3 << 19).put('x');
  bytes.close();
  EXPECT_THROW(decode_state(loaded, *other, nullptr), SealError);
  for (const Tensor& parameter : other->parameters()) EXPECT_TRUE(parameter.eq(0).all().item<bool>());
  // What was damaged before it was opened changes nothing.
  EXPECT_THROW(engine().load_checkpoint(file("a.sealed"), *model), SealError);
  for (const Tensor& parameter : model->parameters()) EXPECT_FALSE(parameter.eq(0).any().item<bool>());
}

TEST_F(Checkpoint, FilesAreKeptUnlessOverwritten) {
  nn::Sequential model = make_model(), other = make_model();
  const PrivacyEngine engine = this->engine();
  engine.save_checkpoint(file("a.sealed"), *model);
  EXPECT_THROW(engine.save_checkpoint(file("a.sealed"), *other), IoError);
  engine.save_checkpoint(file("a.sealed"), *other, nullptr, /*overwrite=*/true);
  engine.load_checkpoint(file("a.sealed"), *model);
  expect_same(model, other);
}

TEST_F(Checkpoint, WithoutItsKeyringOrIntactBytesNothingOpens) {
  nn::Sequential model = make_model(), other = make_model();
  engine().save_checkpoint(file("a.sealed"), *model);
  EXPECT_THROW(PrivacyEngine({.ledger = ":memory:"}).load_checkpoint(file("a.sealed"), *other), InvalidState);
  EXPECT_THROW(PrivacyEngine({.ledger = ":memory:"}).save_checkpoint(file("b.sealed"), *other), InvalidState);
  std::fstream bytes(file("a.sealed"), std::ios::in | std::ios::out | std::ios::binary);
  bytes.seekg(-40, std::ios::end);
  const char flipped = static_cast<char>(bytes.peek() ^ 1);
  bytes.seekp(-40, std::ios::end).put(flipped);
  bytes.close();
  EXPECT_THROW(engine().load_checkpoint(file("a.sealed"), *other), SealError);
  EXPECT_FALSE(same(model, other));
}

TEST_F(Checkpoint, ALedgerThatWasPutBackIsRefused) {
  nn::Sequential model = make_model();
  engine().ledger()->set_budget("icu", 1, 1e-5);
  engine().save_checkpoint(file("a.sealed"), *model);
  engine().load_checkpoint(file("a.sealed"), *model);
  EXPECT_THROW(engine("another.db").load_checkpoint(file("a.sealed"), *model), LedgerError);
}

TEST_F(Checkpoint, ThePrivateRunIsNamedInTheFile) {
  nn::Linear layer(3, 1);
  optim::SGD optimizer(layer->parameters(), 0.1);
  PrivacyEngine engine = this->engine();
  engine.make_private_with_epsilon(layer->named_parameters(), optimizer,
                                   {.dataset_size = 10, .expected_batch_size = 5},
                                   {.target_epsilon = 1, .target_delta = 1e-2, .epochs = 1});
  const Tensor rows = engine.next_batch(), output = layer(torch::ones({rows.size(0), 3}));
  engine.watch(output, rows.size(0));
  output.mean().backward();
  engine.step();
  engine.save_checkpoint(file("a.sealed"), *layer, &optimizer);
  const SealedCore core = inspect_sealed(file("a.sealed"));
  EXPECT_EQ(core.dataset, "icu");
  EXPECT_EQ(core.run_id, engine.run_id());
  EXPECT_EQ(core.step, 1);
  // The ledger's own entry about the file comes after the head that the file holds.
  EXPECT_EQ(core.ledger_hash, engine.ledger()->entries(core.ledger_sequence, 1).at(0).hash);
  EXPECT_EQ(engine.ledger()->head().sequence, core.ledger_sequence + 1);
  EXPECT_EQ(nlohmann::json::parse(core.plan_json)["sampling_rate"], 0.5);
  const auto spent = nlohmann::json::parse(core.epsilon_json);
  EXPECT_EQ(spent["epsilon"], engine.get_epsilon(1e-2));
  EXPECT_EQ(spent["delta"], 1e-2);
}

}  // namespace
}  // namespace hushgrad
