// Trains the model of examples/quickstart.py with differential privacy, without Python: same data, same
// parameter names, same ledger and keyring, so that each language opens the other's checkpoints.
//
//   train FOLDER                 reads FOLDER/train.csv and held_out.csv (export_data.py writes them), uses
//                                hushgrad.ledger.db and hushgrad.keyring there, writes native.sealed
//   train FOLDER --open FILE...  opens checkpoints, whoever wrote them, and prints the score of each
//
// What quickstart.py says about the privacy of this example holds here too. The score on held-out rows is
// shown because this data set is public; with private data it may not be released.
#include <hushgrad.h>
#include <torch/torch.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <sstream>

namespace {

namespace fs = std::filesystem;
using torch::Tensor;

const std::string kDataset = "rand-hie";
constexpr double kTargetEpsilon = 3.0, kLearningRate = 0.03, kMaxGradNorm = 0.5;
constexpr std::int64_t kBatchSize = 2048, kPhysicalBatchSize = 512, kEpochs = 20;

struct Rows {
  Tensor features;  // float32 [n, 9]
  Tensor labels;    // float32 [n, 1], 0 or 1
};

/// One header line, then nine features and the label in each line.
Rows read_csv(const fs::path& path) {
  std::ifstream file(path);
  if (!file)
    throw std::runtime_error("Expected " + path.string() +
                             ", found none. Write it: python export_data.py FOLDER");
  std::vector<float> values;
  std::string line, cell;
  std::getline(file, line);
  const auto columns = 1 + std::count(line.begin(), line.end(), ',');
  while (std::getline(file, line)) {
    std::istringstream cells(line);
    while (std::getline(cells, cell, ',')) values.push_back(std::stof(cell));
  }
  const Tensor table = torch::tensor(values).reshape({-1, columns});
  return {table.slice(1, 0, columns - 1).contiguous(), table.slice(1, columns - 1).contiguous()};
}

torch::nn::Sequential make_model() {
  return torch::nn::Sequential(torch::nn::Linear(9, 16), torch::nn::Tanh(), torch::nn::Linear(16, 1));
}

/// The chance that a random positive row scores above a random negative one, ties half.
double area_under_curve(torch::nn::Sequential& model, const Rows& rows) {
  torch::NoGradGuard no_grad;
  const Tensor scores = model->forward(rows.features).flatten(), positive = rows.labels.flatten() > 0.5;
  const auto [values, group, size] =
      at::_unique2(scores, /*sorted=*/true, /*return_inverse=*/true, /*return_counts=*/true);
  const Tensor mean_rank = size.cumsum(0).to(torch::kDouble) - (size - 1) / 2.0;
  const double ups = positive.sum().item<double>(), downs = static_cast<double>(scores.numel()) - ups;
  return (mean_rank.index({group}).index({positive}).sum().item<double>() - ups * (ups + 1) / 2) /
         (ups * downs);
}

hushgrad::PrivacyEngine open_engine(const fs::path& folder) {
  const fs::path keyring = folder / "hushgrad.keyring";
  auto keys = fs::exists(keyring) ? hushgrad::Keyring::open(keyring) : hushgrad::Keyring::create(keyring);
  keys.create_key(kDataset);
  const char* login = std::getenv("USER");
  return hushgrad::PrivacyEngine({.ledger = folder / "hushgrad.ledger.db",
                                  .dataset = kDataset,
                                  .purpose = "Native example: who sees a doctor",
                                  .actor = login ? login : "",
                                  .keyring = keyring});
}

/// Plays the data owner: allows epsilon 3 on top of what earlier runs spent.
void grant_budget(hushgrad::Ledger& ledger, double delta) {
  ledger.set_budget(kDataset, ledger.spent(kDataset, delta).upper + kTargetEpsilon, delta);
}

void train(const fs::path& folder) {
  const Rows training = read_csv(folder / "train.csv"), held_out = read_csv(folder / "held_out.csv");
  const std::int64_t size = training.labels.size(0);
  const double delta = 1.0 / (10.0 * static_cast<double>(size));

  auto engine = open_engine(folder);
  grant_budget(*engine.ledger(), delta);
  auto model = make_model();
  torch::optim::Adam optimizer(model->parameters(), torch::optim::AdamOptions(kLearningRate));
  engine.make_private_with_epsilon(
      model->named_parameters(), optimizer,
      {.max_grad_norm = kMaxGradNorm,
       .dataset_size = size,
       .expected_batch_size = std::min(kBatchSize, size)},
      {.target_epsilon = kTargetEpsilon, .target_delta = delta, .epochs = kEpochs});

  for (std::int64_t step = 0; step < kEpochs * engine.steps_per_epoch(); ++step) {
    // The batch is drawn whole and computed in parts: memory is bounded, the step is the same.
    for (const Tensor& rows : engine.next_batch().split(kPhysicalBatchSize)) {
      const Tensor output = model->forward(training.features.index_select(0, rows));
      engine.watch(output, rows.size(0));
      engine.backward(torch::nn::functional::binary_cross_entropy_with_logits(
          output, training.labels.index_select(0, rows)));
      engine.accumulate();
    }
    engine.step();  // charge, noise, optimizer.step()
  }
  engine.finish();
  engine.save_checkpoint(folder / "native.sealed", *model, &optimizer, /*overwrite=*/true);

  std::cout << std::setprecision(17) << "epsilon " << engine.get_epsilon(delta) << " at delta " << delta << "\n"
            << "AUC " << std::fixed << std::setprecision(6) << area_under_curve(model, held_out) << "\n";
}

void open(const fs::path& folder, const fs::path& checkpoint) {
  auto model = make_model();
  torch::optim::Adam optimizer(model->parameters());
  open_engine(folder).load_checkpoint(checkpoint, *model, &optimizer);
  std::cout << checkpoint.filename().string() << ": AUC " << std::fixed << std::setprecision(6)
            << area_under_curve(model, read_csv(folder / "held_out.csv")) << "\n";
}

int usage() {
  std::cerr << "usage: train FOLDER\n       train FOLDER --open FILE...\n";
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> args(argv + 1, argv + argc);
  try {
    if (args.size() == 1 && args[0].rfind('-', 0) != 0) {
      train(args[0]);
      return 0;
    }
    if (args.size() < 3 || args[1] != "--open") return usage();
    for (std::size_t i = 2; i < args.size(); ++i) open(args[0], args[i]);
    return 0;
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
