// Differentially private training for a native LibTorch loop.
//
//   hushgrad::PrivacyEngine engine({.ledger = "hushgrad.ledger.db", .dataset = "ward-7"});
//   engine.make_private(model->named_parameters(), optimizer,
//                       {.noise_multiplier = 1.1, .dataset_size = n, .expected_batch_size = 256});
//   for (std::int64_t i = 0; i < engine.steps_per_epoch(); ++i) {
//     auto rows = engine.next_batch();                       // Poisson: varies in size, may be empty
//     auto output = model->forward(x.index_select(0, rows));
//     engine.watch(output, rows.size(0));
//     engine.backward(loss(output, y.index_select(0, rows)));  // checked; loss.backward() works too, unchecked
//     engine.step();                                         // charge, noise, optimizer.step()
//   }
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

#include "dpcore/keys/keyring.h"
#include "torch_ext/private_training.h"

namespace hushgrad {

struct PrivacyEngineOptions {
  std::string ledger = "hushgrad.ledger.db";  // ":memory:" keeps nothing
  std::string dataset = "default";            // whose budget is spent
  std::string purpose{}, actor{};
  std::string keyring{};  // path; needed for checkpoints
  // Path of the signing key, without a passphrase, of whoever trains. A ledger with access rules asks for it, and then actor
  // defaults to whose key it is (docs/access.md).
  std::string identity{};
  // Paths of requests to train, and of the approvals of them, where a policy asks for a second person. Each is good for one run.
  std::vector<std::string> approvals{};
};

struct MakePrivateOptions {
  double noise_multiplier = 0;  // noise's standard deviation / max_grad_norm; 0: not private, epsilon infinite
  double max_grad_norm = 1.0;   // l2 norm of one sample's gradient over all parameters
  std::int64_t dataset_size = 0;         // public
  std::int64_t expected_batch_size = 0;  // the sampling rate is expected_batch_size / dataset_size
  LossReduction loss_reduction = LossReduction::mean;  // of the criterion; a wrong one voids the guarantee
  bool batch_first = true;
  // flat: max_grad_norm over all parameters. per_layer: shared evenly among the layers (what parameters' names have in
  // common up to the last dot), or layer_norms, one a parameter. adaptive: where the bound starts; see adaptive.
  Clipping clipping = Clipping::flat;
  std::vector<double> layer_norms{};
  AdaptiveClippingOptions adaptive{};  // unclipped_num_std 0: expected_batch_size / 20, or noise_multiplier if that is more
  bool unchecked_loss = false;         // backward() accepts a loss that cannot be checked
  // The law of the batches and so their cost (docs/batches.md).
  Sampling sampling = Sampling::poisson;
  std::int64_t max_batch_size = 0;     // of truncated_poisson, >= expected_batch_size; 0: six deviations above it
  // Of users: the user of each row, any numbers, and how many rows of one user may be in a batch. expected_batch_size then counts
  // users, and max_grad_norm bounds a user's whole contribution.
  std::vector<std::int64_t> owners{};
  std::int64_t max_records_per_user = 0;
  NoiseSampler noise = NoiseSampler::fast;  // exact: tens of times as slow, with nothing to charge for its precision
};

struct TargetOptions {
  double target_epsilon = 0, target_delta = 0;
  std::int64_t epochs = 0;
};

/// Users of a batch with equally many rows.
struct UserPart {
  torch::Tensor rows;      // int64 [users * rows of each], one user after the other
  std::int64_t users = 0;  // the batch_size to watch them with
};

/// The same engine, ledger and sealed files as hushgrad.PrivacyEngine in Python, and the same guarantee.
/// One thread. Guide: docs/native.md.
///
/// What Python checks by running the model on other samples is not checked here: a model whose *forward* pass
/// takes statistics over the batch of tensors that need no gradient must not be used.
class PrivacyEngine {
 public:
  /// Opens or makes the ledger. @throws KeyError for the identity, InvalidArgument and IoError for approvals; see approvals_of_run().
  explicit PrivacyEngine(PrivacyEngineOptions options);
  ~PrivacyEngine();

  using Parameters = torch::OrderedDict<std::string, torch::Tensor>;

  /// parameters: of the module; those that require grad and that the optimizer steps become private, the rest
  /// of them gets no gradient. One tensor under several names is one parameter. The optimizer must outlive
  /// the engine. @throws InvalidArgument, InvalidState (twice).
  void make_private(const Parameters& parameters, torch::optim::Optimizer& optimizer,
                    const MakePrivateOptions& options);
  /// With the smallest noise for which the epochs cost at most target_epsilon, in place of
  /// options.noise_multiplier. @throws InvalidArgument also for a target outside its domain: epochs >= 1, target_epsilon > 0,
  /// target_delta in (0, 1).
  void make_private_with_epsilon(const Parameters& parameters, torch::optim::Optimizer& optimizer,
                                 const MakePrivateOptions& options, const TargetOptions& target);

  /// Row numbers of the next batch, int64 [n], n >= 0. Drops a batch that was not stepped. Of users: one user after the other,
  /// those with fewer rows first.
  torch::Tensor next_batch();
  /// Of Sampling::users: how many of the batch's rows each user has, ascending. Parts are watched in this order, and each holds
  /// users with equally many rows.
  const std::vector<std::int64_t>& user_sizes() const { return user_sizes_; }
  /// The batch in parts that can be watched: all users with equally many rows, or at most max_users (>= 1) of them. One part of no
  /// rows for an empty batch. @throws InvalidState without a batch, or under another law.
  std::vector<UserPart> user_parts(std::int64_t max_users = INT64_MAX) const;
  std::int64_t steps_per_epoch() const;

  /// Attaches to the graph of a forward pass over `batch_size` rows (of Sampling::users: users) of the current batch: all of
  /// them, or, for virtual batches, a part of them, each part ended by accumulate().
  /// @throws InvalidArgument for more than was drawn; of users also for a part whose users own different numbers of rows, and for
  /// an output without the rows of that many users.
  void watch(const torch::Tensor& output, std::int64_t batch_size);
  void watch(const std::vector<torch::Tensor>& outputs, std::int64_t batch_size);
  /// loss.backward() after a check that the loss is a mean or sum of one loss a sample. @throws Unsupported where it
  /// couples the samples (contrastive losses, batch variances, a mean over the batch's kept targets).
  void backward(const torch::Tensor& loss);
  /// Clips one part of a virtual batch and adds it up; step() does it for the last or only part.
  void accumulate();
  /// Ends the batch: charge, noise, optimizer.step(). @throws BudgetExceeded, InvalidState, PrivacyViolation
  /// (a parameter joined the optimizer later); the model is unchanged then.
  void step();

  /// Change the following steps; only a schedule that does not look at the data may. @throws InvalidArgument, InvalidState.
  void set_noise_multiplier(double noise_multiplier);
  void set_max_grad_norm(double max_grad_norm);
  double max_grad_norm() const;

  /// Upper end of epsilon at delta of this run: never below the truth.
  double get_epsilon(double delta) const;
  const std::string& run_id() const;
  std::int64_t steps() const;
  const std::shared_ptr<Ledger>& ledger() const { return ledger_; }
  /// Marks the run "completed" or "failed" in the ledger. Never changes what was spent.
  void finish(const std::string& status = "completed");

  /// Seals model, optimizer (SGD, Adam, AdamW), plan and ledger head; Python opens it and the reverse.
  /// @throws InvalidState without a keyring, IoError if the file exists and overwrite is false, Unsupported.
  void save_checkpoint(const std::string& path, const torch::nn::Module& module,
                       const torch::optim::Optimizer* optimizer = nullptr, bool overwrite = false) const;
  /// @throws LedgerError if the checkpoint has seen a ledger that this one does not continue, SealError or
  /// KeyError if the file is not intact or not ours, InvalidArgument if it does not fit; nothing is changed
  /// then. Weights are decrypted in the module's own memory where it fits; should the file change between the pass that
  /// authenticates it and that one, SealError, and those weights are zero.
  void load_checkpoint(const std::string& path, torch::nn::Module& module,
                       torch::optim::Optimizer* optimizer = nullptr) const;

 private:
  void begin(const Parameters& parameters, torch::optim::Optimizer& optimizer, const MakePrivateOptions& options, const TargetOptions* target);
  PrivateTraining& training() const;
  Keyring keyring() const;
  void refuse_foreign_gradients() const;
  bool by_users() const;
  void begin_part(std::int64_t batch_size);
  void check_rows_of_users(const std::vector<torch::Tensor>& outputs) const;

  PrivacyEngineOptions options_;
  std::shared_ptr<Ledger> ledger_;
  std::unique_ptr<PrivateTraining> training_;
  torch::optim::Optimizer* optimizer_ = nullptr;
  std::unordered_set<const c10::TensorImpl*> private_;  // what the optimizer may step
  torch::Tensor rows_;                    // of the drawn batch
  std::vector<std::int64_t> user_sizes_;  // of the drawn batch
  std::int64_t rows_each_ = 1;            // of a user of the part being watched
  std::int64_t epoch_ = 0;    // of the drawn batch
  std::int64_t undone_ = -1;  // rows (or users) of the drawn batch that no part has taken yet; -1: no batch
  std::int64_t part_ = -1;    // rows of the part being watched; -1: none
};

}  // namespace hushgrad
