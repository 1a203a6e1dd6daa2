// Models of torch::nn against a loop over single samples in float64, and what must be refused.
#include "torch_ext/capture/capture.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <functional>

#include "dpcore/error.h"

namespace hushgrad {
namespace {

using torch::Tensor;
namespace nn = torch::nn;

struct Model {
  std::shared_ptr<nn::Module> module;
  std::function<Tensor(const Tensor&)> forward;
};

struct Case {
  std::string name;
  std::function<Model()> build;
  std::function<Tensor(std::int64_t)>
      inputs;  // of a batch; sample b in row b, or column b unless batch_first
  bool batch_first = true;
  bool forward_is_checked = false;  // the test knows that samples are independent, where the graph alone cannot show it
};

std::ostream& operator<<(std::ostream& out, const Case& c) { return out << c.name; }

template <typename Holder>
Model one(Holder holder) {
  return {holder.ptr(), [holder](const Tensor& x) mutable { return holder->forward(x); }};
}

template <typename... Layers>
Model chain(Layers... layers) {
  return one(nn::Sequential(layers...));
}

/// A module made of loose parts.
struct Parts : nn::Module {
  template <typename Layer>
  Layer add(const std::string& name, Layer layer) {
    return register_module(name, layer);
  }
  Tensor free(const std::string& name, Tensor value) { return register_parameter(name, value); }
};

// Samples of different sizes, so that some are clipped and some are not.
std::function<Tensor(std::int64_t)> floats(std::vector<std::int64_t> shape) {
  return [shape](std::int64_t batch) {
    std::vector<std::int64_t> sizes{batch}, scales(shape.size() + 1, 1);
    sizes.insert(sizes.end(), shape.begin(), shape.end());
    scales[0] = batch;
    return torch::randn(sizes) * torch::linspace(0.2, 2, batch).reshape(scales);
  };
}

std::function<Tensor(std::int64_t)> ids(std::int64_t limit, std::int64_t length) {
  return [=](std::int64_t batch) { return torch::randint(limit, {batch, length}, torch::kLong); };
}

Model tied_embedding() {
  auto parts = std::make_shared<Parts>();
  auto table = parts->add("table", nn::Embedding(11, 5));
  auto mix = parts->add("mix", nn::Linear(5, 5));
  return {parts, [=](const Tensor& x) mutable {
            return nn::functional::linear(torch::tanh(mix(table(x))), table->weight);
          }};
}

// Tokens go to one of two experts by their first value; an expert sees its own tokens only.
Model routed_experts() {
  auto parts = std::make_shared<Parts>();
  auto first = parts->add("first", nn::Linear(6, 4)), second = parts->add("second", nn::Linear(6, 4));
  return {parts, [first, second](const Tensor& x) mutable {
            const Tensor tokens = x.flatten(0, 1), to_first = tokens.select(1, 0).gt(0);
            Tensor out = torch::zeros({tokens.size(0), 4}, tokens.options());
            for (bool which : {true, false}) {
              const Tensor rows = to_first.eq(which).nonzero().squeeze(1);
              out = out.index_add(0, rows, torch::tanh((which ? first : second)->forward(tokens.index_select(0, rows))));
            }
            return out.view({x.size(0), x.size(1), 4});
          }};
}

// Sample b has 1 + b % 4 time steps, known by the zeros behind them.
Model packed_lstm() {
  auto parts = std::make_shared<Parts>();
  auto layer = parts->add("layer", nn::LSTM(nn::LSTMOptions(6, 5).batch_first(true)));
  return {parts, [layer](const Tensor& x) mutable {
            const Tensor lengths = x.detach().abs().sum(2).gt(0).sum(1).clamp_min(1).cpu();
            auto packed = nn::utils::rnn::pack_padded_sequence(x, lengths, true, false);
            auto states = std::get<0>(layer->forward_with_packed_input(packed));
            return std::get<0>(nn::utils::rnn::pad_packed_sequence(states, true, 0.0, x.size(1)));
          }};
}

std::function<Tensor(std::int64_t)> of_several_lengths(std::vector<std::int64_t> shape) {
  return [shape](std::int64_t batch) {
    Tensor x = floats(shape)(batch);
    for (std::int64_t b = 0; b < batch; ++b) x[b].narrow(0, 1 + b % shape[0], shape[0] - 1 - b % shape[0]).zero_();
    return x;
  };
}

Model used_twice() {
  auto parts = std::make_shared<Parts>();
  auto layer = parts->add("layer", nn::Linear(6, 6));
  return {parts, [=](const Tensor& x) mutable { return layer(torch::tanh(layer(x))); }};
}

/// A layer whose forward gives a tuple.
template <typename Holder>
Model first_of(Holder layer) {
  return {layer.ptr(), [layer](const Tensor& x) mutable { return std::get<0>(layer(x)); }};
}

Model self_attention() {
  nn::MultiheadAttention layer(nn::MultiheadAttentionOptions(8, 2));
  return {layer.ptr(), [layer](const Tensor& x) mutable {
            const Tensor time_first = x.transpose(0, 1);
            return std::get<0>(layer(time_first, time_first, time_first)).transpose(0, 1);
          }};
}

Model encoder_layer() {
  nn::TransformerEncoderLayer layer(nn::TransformerEncoderLayerOptions(8, 2).dim_feedforward(16).dropout(0.0));
  return {layer.ptr(), [layer](const Tensor& x) mutable { return layer(x.transpose(0, 1)).transpose(0, 1); }};
}

Model decoder_layer() {
  nn::TransformerDecoderLayer layer(nn::TransformerDecoderLayerOptions(8, 2).dim_feedforward(16).dropout(0.0));
  return {layer.ptr(), [layer](const Tensor& x) mutable {
            const Tensor time_first = x.transpose(0, 1);
            return layer(time_first, time_first.slice(0, 0, 3)).transpose(0, 1);
          }};
}

Model bilinear() {
  nn::Bilinear layer(nn::BilinearOptions(4, 4, 3));
  return {layer.ptr(), [layer](const Tensor& x) mutable { return layer(x.slice(1, 0, 4).contiguous(), x.slice(1, 4, 8).contiguous()); }};
}

Model embedding_bag(torch::nn::EmbeddingBagMode mode) {
  nn::EmbeddingBag layer(nn::EmbeddingBagOptions(5, 4).mode(mode));
  return {layer.ptr(), [layer](const Tensor& x) mutable { return layer(x); }};
}

Model scaled_dot_product() {
  auto parts = std::make_shared<Parts>();
  auto qkv = parts->add("qkv", nn::Linear(8, 24));
  return {parts, [=](const Tensor& x) mutable {
            const Tensor t = qkv(x).view({x.size(0), x.size(1), 3, 2, 4}).permute({2, 0, 3, 1, 4});
            return at::scaled_dot_product_attention(t[0], t[1], t[2], {}, 0.0, true).transpose(1, 2).flatten(2);
          }};
}

Model free_products() {
  auto parts = std::make_shared<Parts>();
  auto left = parts->free("left", torch::randn({4, 6}));
  auto gate = parts->free("gate", torch::tensor(0.7));
  auto bias = parts->free("bias", torch::randn({4}));
  return {parts, [=](const Tensor& x) {
            const Tensor h = torch::einsum("btd,pd->btp", {x, left}) + bias;
            return torch::sigmoid(gate) * h.tanh();
          }};
}

Model tied_by_transposing() {
  auto parts = std::make_shared<Parts>();
  auto weight = parts->free("weight", torch::randn({3, 6}));
  return {parts, [=](const Tensor& x) {
            return nn::functional::linear(nn::functional::linear(x, weight).tanh(), weight.t());
          }};
}

Model merged_low_rank() {
  auto parts = std::make_shared<Parts>();
  auto weight = parts->add("base", nn::Linear(6, 4));
  weight->weight.set_requires_grad(true);
  auto a = parts->free("a", torch::randn({2, 6}));
  auto b = parts->free("b", torch::randn({4, 2}));
  return {parts, [=](const Tensor& x) { return nn::functional::linear(x, weight->weight + b.mm(a), weight->bias); }};
}

Model u_net() {
  auto parts = std::make_shared<Parts>();
  auto down = parts->add("down", nn::Conv2d(nn::Conv2dOptions(1, 4, 3).padding(1)));
  auto deep = parts->add("deep", nn::Conv2d(nn::Conv2dOptions(4, 6, 3).padding(1)));
  auto up = parts->add("up", nn::ConvTranspose2d(nn::ConvTranspose2dOptions(6, 4, 2).stride(2)));
  auto out = parts->add("out", nn::Conv2d(nn::Conv2dOptions(8, 2, 3).padding(1)));
  return {parts, [=](const Tensor& x) mutable {
            const Tensor level = torch::relu(down(x));
            const Tensor lower = torch::relu(deep(torch::max_pool2d(level, 2)));
            return out(torch::cat({level, up(lower)}, 1));
          }};
}

Model lstm(bool batch_first) {
  nn::LSTM layer(nn::LSTMOptions(6, 5).num_layers(2).batch_first(batch_first));
  return {layer.ptr(), [layer](const Tensor& x) mutable { return std::get<0>(layer(x)); }};
}

Model positional() {
  auto parts = std::make_shared<Parts>();
  auto table = parts->free("table", torch::randn({9, 6}));
  auto scale = parts->free("scale", torch::randn({6}));
  auto head = parts->add("head", nn::Linear(6, 3));
  return {parts, [=](const Tensor& x) mutable {
            return head(torch::tanh((x + table.slice(0, 0, x.size(1))) * scale));
          }};
}

Model unused_and_partial() {
  auto parts = std::make_shared<Parts>();
  auto layer = parts->add("layer", nn::Linear(6, 4));
  parts->add("unused", nn::Linear(3, 3));
  auto some = parts->free("some", torch::randn({4}));
  return {parts, [=](const Tensor& x) mutable {
            const Tensor h = layer(x);
            return torch::where(x.slice(1, 0, 1) > 0, h * some, h);
          }};
}

std::vector<Case> cases() {
  using nn::Conv1dOptions, nn::Conv2dOptions, nn::Conv3dOptions;
  const auto mlp = [] {
    return chain(nn::Linear(7, 6), nn::Tanh(), nn::Linear(nn::LinearOptions(6, 4).bias(false)));
  };
  return {
      {"Linear2d", mlp, floats({7})},
      {"Linear3d", mlp, floats({5, 7})},
      {"Linear4d", mlp, floats({3, 5, 7})},
      {"LinearLong", [] { return chain(nn::Linear(3, 20), nn::Tanh(), nn::Linear(20, 3)); },
       floats({150, 3})},
      {"Conv1d",
       [] {
         return chain(nn::Conv1d(Conv1dOptions(4, 8, 3).stride(2).padding(1)), nn::Tanh(),
                      nn::Conv1d(Conv1dOptions(8, 4, 2).bias(false)));
       },
       floats({4, 19})},
      {"Conv2d",
       [] {
         return chain(nn::Conv2d(Conv2dOptions(4, 8, 3).padding(1)), nn::Tanh(),
                      nn::Conv2d(Conv2dOptions(8, 4, 2).dilation(2)));
       },
       floats({4, 11, 9})},
      {"Conv2dGroups", [] { return chain(nn::Conv2d(Conv2dOptions(4, 8, 3).groups(4))); }, floats({4, 7, 6})},
      {"Conv3d",
       [] {
         return chain(nn::Conv3d(Conv3dOptions(2, 4, 3)), nn::Tanh(), nn::Conv3d(Conv3dOptions(4, 2, 2)));
       },
       floats({2, 6, 7, 5})},
      {"Embedding",
       [] {
         return chain(nn::Embedding(nn::EmbeddingOptions(11, 5).padding_idx(3)), nn::Tanh(),
                      nn::Linear(5, 3));
       },
       ids(11, 6)},
      {"LayerNorm",
       [] { return chain(nn::Linear(6, 8), nn::LayerNorm(nn::LayerNormOptions({8})), nn::Linear(8, 3)); },
       floats({5, 6})},
      {"GroupNorm",
       [] {
         return chain(nn::Conv2d(Conv2dOptions(3, 8, 3)), nn::GroupNorm(4, 8), nn::Tanh(), nn::Flatten(),
                      nn::Linear(8 * 16, 3));
       },
       floats({3, 6, 6})},
      {"InstanceNorm",
       [] {
         return chain(nn::Conv2d(Conv2dOptions(3, 4, 3)),
                      nn::InstanceNorm2d(nn::InstanceNorm2dOptions(4).affine(true)));
       },
       floats({3, 6, 6})},
      {"TiedEmbedding", tied_embedding, ids(11, 6)},
      {"UsedTwice", used_twice, floats({5, 6})},
      {"Lstm", [] { return lstm(true); }, floats({4, 6})},
      {"LstmBatchSecond", [] { return lstm(false); },
       [](std::int64_t batch) { return floats({4, 6})(batch).transpose(0, 1).contiguous(); }, false},
      {"PositionalParameter", positional, floats({5, 6})},
      {"UnusedAndPartial", unused_and_partial, floats({6})},
      {"GenericPRelu",
       [] {
         return chain(nn::Linear(6, 8), nn::PReLU(nn::PReLUOptions().num_parameters(8)), nn::Linear(8, 3));
       },
       floats({6})},
      {"Linear5d", mlp, floats({2, 3, 2, 7})},
      {"Conv1dReflect",
       [] { return chain(nn::Conv1d(Conv1dOptions(4, 8, 3).padding(1).padding_mode(torch::kReflect))); }, floats({4, 9})},
      {"Conv2dCircular",
       [] { return chain(nn::Conv2d(Conv2dOptions(4, 8, 3).padding(1).padding_mode(torch::kCircular))); }, floats({4, 7, 6})},
      {"Conv2dSame", [] { return chain(nn::Conv2d(Conv2dOptions(4, 16, 3).padding(torch::kSame))); }, floats({4, 7, 6})},
      {"Conv2dStride", [] { return chain(nn::Conv2d(Conv2dOptions(4, 24, 3).stride(2).padding(1).groups(2))); }, floats({4, 9, 8})},
      {"ConvTranspose1d", [] { return chain(nn::ConvTranspose1d(nn::ConvTranspose1dOptions(4, 6, 3).stride(2).groups(2))); },
       floats({4, 9})},
      {"ConvTranspose3d", [] { return chain(nn::ConvTranspose3d(nn::ConvTranspose3dOptions(4, 6, 2).stride(2))); },
       floats({4, 3, 4, 3})},
      {"InstanceNorm1d",
       [] {
         return chain(nn::Conv1d(Conv1dOptions(3, 4, 3)), nn::InstanceNorm1d(nn::InstanceNorm1dOptions(4).affine(true)));
       },
       floats({3, 9})},
      {"Bilinear", bilinear, floats({8})},
      {"EmbeddingBagSum", [] { return embedding_bag(torch::kSum); }, ids(5, 6)},
      {"EmbeddingBagMean", [] { return embedding_bag(torch::kMean); }, ids(5, 6)},
      {"EmbeddingBagMax", [] { return embedding_bag(torch::kMax); }, ids(5, 6)},
      {"Rnn", [] { return first_of(nn::RNN(nn::RNNOptions(6, 5).num_layers(2).batch_first(true))); }, floats({4, 6})},
      {"Gru", [] { return first_of(nn::GRU(nn::GRUOptions(6, 5).bidirectional(true).batch_first(true))); }, floats({4, 6})},
      {"LstmBidirectional",
       [] { return first_of(nn::LSTM(nn::LSTMOptions(6, 5).num_layers(2).bidirectional(true).batch_first(true))); }, floats({4, 6})},
      {"LstmWithoutBias", [] { return first_of(nn::LSTM(nn::LSTMOptions(6, 5).bias(false).batch_first(true))); }, floats({4, 6})},
      {"SelfAttention", self_attention, floats({5, 8})},
      {"EncoderLayer", encoder_layer, floats({5, 8})},
      {"DecoderLayer", decoder_layer, floats({5, 8})},
      {"ScaledDotProduct", scaled_dot_product, floats({5, 8})},
      {"FreeProducts", free_products, floats({5, 6})},
      {"TiedByTransposing", tied_by_transposing, floats({6})},
      {"MergedLowRank", merged_low_rank, floats({5, 6})},
      {"UNet", u_net, floats({1, 8, 8})},
      {"RoutedExperts", routed_experts, floats({5, 6}), true, true},
      {"PackedLstm", packed_lstm, of_several_lengths({4, 6}), true, true},
      {"GenericConvTranspose",
       [] { return chain(nn::ConvTranspose2d(nn::ConvTranspose2dOptions(4, 6, 3).stride(2))); },
       floats({4, 5, 6})},
  };
}

std::vector<Tensor> parameters_of(const nn::Module& module) { return module.parameters(); }

GraphCapture capture_of(const nn::Module& module, CaptureOptions options) {
  std::vector<std::string> names;
  for (const auto& item : module.named_parameters()) names.push_back(item.key());
  return GraphCapture(parameters_of(module), names, {}, options);
}

/// [B]: a loss of its own for each sample, of weight that differs between the output's coordinates.
Tensor losses(Tensor output, bool batch_first) {
  if (!batch_first) output = output.transpose(0, 1);
  const Tensor rows = output.flatten(1);
  return (rows.square() * torch::linspace(0.5, 1.5, rows.size(1), rows.options())).sum(1);
}

/// One sample at a time, in float64: gradients [sample][parameter].
std::vector<std::vector<Tensor>> gradients_one_by_one(const Model& model, const Tensor& inputs,
                                                      bool batch_first) {
  model.module->to(torch::kDouble);
  const auto parameters = parameters_of(*model.module);
  std::vector<std::vector<Tensor>> result;
  for (std::int64_t b = 0; b < inputs.size(batch_first ? 0 : 1); ++b) {
    Tensor sample = inputs.narrow(batch_first ? 0 : 1, b, 1);
    if (sample.is_floating_point()) sample = sample.to(torch::kDouble);
    auto grads = torch::autograd::grad({losses(model.forward(sample), batch_first).sum()}, parameters, {}, {},
                                       false, true);
    for (std::size_t p = 0; p < grads.size(); ++p) {
      if (!grads[p].defined()) grads[p] = torch::zeros_like(parameters[p]);
    }
    result.push_back(std::move(grads));
  }
  model.module->to(torch::kFloat);
  return result;
}

double norm_of(const std::vector<Tensor>& gradients) {
  double squares = 0;
  for (const Tensor& g : gradients) squares += g.square().sum().item<double>();
  return std::sqrt(squares);
}

std::vector<Tensor> clipped_sum(const std::vector<std::vector<Tensor>>& gradients, double max_grad_norm) {
  std::vector<Tensor> sum;
  for (const auto& sample : gradients) {
    const double factor = std::min(1.0, max_grad_norm / std::max(norm_of(sample), 1e-300));
    for (std::size_t p = 0; p < sample.size(); ++p) {
      if (sum.size() == p) sum.push_back(torch::zeros_like(sample[p]));
      sum[p] += factor * sample[p];
    }
  }
  return sum;
}

double median_norm(const std::vector<std::vector<Tensor>>& gradients) {
  std::vector<double> norms;
  for (const auto& sample : gradients) norms.push_back(norm_of(sample));
  std::nth_element(norms.begin(), norms.begin() + norms.size() / 2, norms.end());
  return norms[norms.size() / 2];
}

std::vector<Tensor> finish(GraphCapture& capture) {
  capture.finish();
  return capture.take_sums();
}

/// Largest difference, relative to the largest coordinate of all that is expected.
double relative_difference(const std::vector<Tensor>& sums, const std::vector<Tensor>& expected) {
  double difference = 0, scale = 1e-12;
  for (std::size_t p = 0; p < expected.size(); ++p) {
    difference = std::max(difference, (sums[p].to(torch::kDouble) - expected[p]).abs().max().item<double>());
    scale = std::max(scale, expected[p].abs().max().item<double>());
  }
  return difference / scale;
}

class CaptureIsExact : public testing::TestWithParam<Case> {};

TEST_P(CaptureIsExact, AgainstSingleSamplesInFloat64) {
  torch::manual_seed(7);
  const Case& c = GetParam();
  const Model model = c.build();
  for (const LossReduction reduction : {LossReduction::mean, LossReduction::sum}) {
    const Tensor inputs = c.inputs(6);
    const auto gradients = gradients_one_by_one(model, inputs, c.batch_first);
    const double max_grad_norm = median_norm(gradients);

    GraphCapture capture = capture_of(*model.module, {max_grad_norm, reduction, c.batch_first, c.forward_is_checked});
    // The second round finds the graph's structure known already.
    for (int round = 0; round < 2; ++round) {
      capture.begin_batch(6);
      const Tensor output = model.forward(inputs);
      EXPECT_EQ(capture.watch({output}), round == 0);
      const Tensor each = losses(output, c.batch_first);
      (reduction == LossReduction::mean ? each.mean() : each.sum()).backward();
      capture.accumulate();
      const std::vector<Tensor> sums = finish(capture);
      EXPECT_LT(relative_difference(sums, clipped_sum(gradients, max_grad_norm)), 1e-5);
      for (const Tensor& parameter : parameters_of(*model.module)) EXPECT_FALSE(parameter.grad().defined());
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, CaptureIsExact, testing::ValuesIn(cases()),
                         [](const auto& info) { return info.param.name; });

TEST_P(CaptureIsExact, PerLayerAgainstSingleSamplesInFloat64) {
  torch::manual_seed(7);
  const Case& c = GetParam();
  const Model model = c.build();
  const Tensor inputs = c.inputs(6);
  const auto gradients = gradients_one_by_one(model, inputs, c.batch_first);
  const std::size_t count = parameters_of(*model.module).size();

  CaptureOptions options{1.0, LossReduction::mean, c.batch_first, c.forward_is_checked};
  std::vector<Tensor> expected;
  for (std::size_t p = 0; p < count; ++p) {
    std::vector<std::vector<Tensor>> alone;
    for (const auto& sample : gradients) alone.push_back({sample[p]});
    options.group_norms.push_back(std::max(median_norm(alone), 1e-6));
    options.group_of.push_back(p);
    expected.push_back(clipped_sum(alone, options.group_norms[p])[0]);
  }
  GraphCapture capture = capture_of(*model.module, options);
  for (int round = 0; round < 2; ++round) {
    capture.begin_batch(6);
    const Tensor output = model.forward(inputs);
    capture.watch({output});
    losses(output, c.batch_first).mean().backward();
    capture.accumulate();
    EXPECT_LT(relative_difference(finish(capture), expected), 1e-5);
  }
}

class Capture : public testing::Test {
 protected:
  void SetUp() override { torch::manual_seed(11); }

  nn::Sequential model_{nn::Linear(7, 6), nn::Tanh(), nn::Linear(6, 4)};
};

TEST_F(Capture, BatchStatisticsAreRefusedByName) {
  nn::Sequential model(nn::Linear(7, 6), nn::BatchNorm1d(6), nn::Linear(6, 4));
  GraphCapture capture = capture_of(*model, {});
  capture.begin_batch(5);
  try {
    capture.watch({model->forward(torch::randn({5, 7}))});
    FAIL() << "a model that mixes samples was accepted";
  } catch (const Unsupported& error) {
    EXPECT_NE(std::string(error.what()).find("NativeBatchNormBackward0"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("GroupNorm"), std::string::npos) << error.what();
  }
}

TEST_F(Capture, AnEmptyBatchIsTheZeroSum) {
  GraphCapture capture = capture_of(*model_, {});
  capture.begin_batch(0);
  const Tensor output = model_->forward(torch::randn({0, 7}));
  capture.watch({output});
  losses(output, true).mean().backward();  // NaN: the mean of nothing
  capture.accumulate();
  for (const Tensor& sum : finish(capture)) EXPECT_TRUE(sum.eq(0).all().item<bool>());
}

TEST_F(Capture, ASampleThatIsNotFiniteContributesNothing) {
  Tensor inputs = torch::randn({5, 7});
  for (const double poison : {std::nan(""), HUGE_VAL}) {
    inputs[2][3] = poison;
    const Tensor others = inputs.index_select(0, torch::tensor({0, 1, 3, 4}));
    const auto expected = clipped_sum(gradients_one_by_one(one(model_), others, true), 0.5);
    GraphCapture capture = capture_of(*model_, {0.5, LossReduction::sum});
    capture.begin_batch(5);
    const Tensor output = model_->forward(inputs);
    capture.watch({output});
    losses(output, true).sum().backward();
    capture.accumulate();
    EXPECT_LT(relative_difference(finish(capture), expected), 1e-5);
  }
}

TEST_F(Capture, AWeightPenaltyInTheLossIsAnError) {
  GraphCapture capture = capture_of(*model_, {});
  capture.begin_batch(5);
  const Tensor output = model_->forward(torch::randn({5, 7}));
  capture.watch({output});
  const Tensor penalty = 0.01 * model_->parameters()[0].square().sum();
  EXPECT_THROW((losses(output, true).mean() + penalty).backward(), PrivacyViolation);
  for (const Tensor& parameter : model_->parameters()) EXPECT_FALSE(parameter.grad().defined());
  EXPECT_THROW(capture.accumulate(), InvalidState);
}

TEST_F(Capture, AForwardPassThatIsNotWatchedIsAnError) {
  GraphCapture capture = capture_of(*model_, {});
  EXPECT_THROW(losses(model_->forward(torch::randn({5, 7})), true).mean().backward(), PrivacyViolation);
  for (const Tensor& parameter : model_->parameters()) EXPECT_FALSE(parameter.grad().defined());
}

TEST_F(Capture, ALossThatCouplesSamplesIsRefused) {
  GraphCapture capture = capture_of(*model_, {1.0});
  const Tensor inputs = torch::randn({5, 7});
  const auto loss_of = [&](const std::function<Tensor(const Tensor&)>& loss) {
    capture.discard(true);
    capture.begin_batch(5);
    const Tensor output = model_->forward(inputs);
    capture.watch({output});
    capture.check_loss({loss(output)}, {});
  };
  EXPECT_NO_THROW(loss_of([](const Tensor& z) { return z.square().mean(); }));
  EXPECT_NO_THROW(loss_of([](const Tensor& z) { return nn::functional::cross_entropy(z, torch::arange(5) % 4); }));
  EXPECT_THROW(loss_of([](const Tensor& z) { return z.square().mean().sqrt(); }), Unsupported);
  EXPECT_THROW(loss_of([](const Tensor& z) { return z.mm(z.t()).logsumexp(1).mean(); }), Unsupported);
  EXPECT_THROW(loss_of([](const Tensor& z) {
                 return nn::functional::cross_entropy(
                     z, torch::tensor({0, 1, -100, 2, 3}), nn::functional::CrossEntropyFuncOptions().ignore_index(-100));
               }),
               Unsupported);
}

TEST_F(Capture, SecondDerivativesAreRefused) {
  GraphCapture capture = capture_of(*model_, {});
  capture.begin_batch(5);
  const Tensor output = model_->forward(torch::randn({5, 7}));
  capture.watch({output});
  EXPECT_THROW(losses(output, true).mean().backward({}, true, /*create_graph=*/true), Unsupported);
}

TEST_F(Capture, PartsOfABatchAddUp) {
  const Tensor inputs = torch::randn({7, 7});
  const auto expected = clipped_sum(gradients_one_by_one(one(model_), inputs, true), 0.3);
  GraphCapture capture = capture_of(*model_, {0.3, LossReduction::mean});
  for (const Tensor& part : inputs.split(3)) {  // 3, 3 and 1 rows
    capture.begin_batch(part.size(0));
    const Tensor output = model_->forward(part);
    capture.watch({output});
    losses(output, true).mean().backward();
    capture.accumulate();
  }
  EXPECT_LT(relative_difference(finish(capture), expected), 1e-5);
}

TEST_F(Capture, AnswersCallsOutOfOrder) {
  GraphCapture capture = capture_of(*model_, {});
  const Tensor inputs = torch::randn({5, 7});
  EXPECT_THROW(capture.watch({model_->forward(inputs)}), InvalidState);
  EXPECT_THROW(capture.accumulate(), InvalidState);
  EXPECT_THROW(capture.finish(), InvalidState);
  EXPECT_THROW(capture.begin_batch(-1), InvalidArgument);
  capture.begin_batch(5);
  const Tensor output = model_->forward(inputs);
  capture.watch({output});
  EXPECT_THROW(capture.accumulate(), InvalidState) << "no backward pass ran";
  losses(output, true).mean().backward();
  EXPECT_THROW(capture.begin_batch(5), InvalidState) << "gradients would be lost";
  capture.discard(true);
  EXPECT_THROW(capture.finish(), InvalidState);
}

TEST_F(Capture, AWrongBatchSizeIsRefused) {
  GraphCapture capture = capture_of(*model_, {});
  capture.begin_batch(4);
  EXPECT_THROW(capture.watch({model_->forward(torch::randn({5, 7}))}), Unsupported);
}

TEST_F(Capture, AParameterIsTakenOnceAndOnlyAsALeaf) {
  const Tensor leaf = torch::randn({3}).requires_grad_();
  EXPECT_THROW(GraphCapture({leaf, leaf}, {"a", "b"}, {}, {}), InvalidArgument);
  EXPECT_THROW(GraphCapture({leaf * 2}, {"a"}, {}, {}), InvalidArgument);
  EXPECT_THROW(GraphCapture({torch::randn({3})}, {"a"}, {}, {}), InvalidArgument);
  EXPECT_THROW(GraphCapture({leaf}, {"a"}, {}, {0.0}), InvalidArgument);
}

}  // namespace
}  // namespace hushgrad
