// One private training run: sampling, clipping, charging and noising made by one object, so that they cannot disagree.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "accounting/accountants/interval.h"
#include "accounting/batch_law.h"
#include "accounting/event.h"
#include "accounting/ledger/ledger.h"
#include "dpcore/clipping/adaptive_clipping.h"
#include "dpcore/clipping/certified_pass.h"
#include "dpcore/noise/lattice_gaussian.h"
#include "dpcore/random/csprng.h"
#include "dpcore/random/insecure_seed.h"
#include "dpcore/random/shared_stream.h"
#include "torch_ext/capture/capture.h"
#include "torch_ext/distributed/ranks.h"

namespace hushgrad {

/// How a sample's gradient is bounded.
enum class Clipping {
  flat,       // one norm over all parameters, min(1, C / n)
  per_layer,  // one norm and one bound a group; finished inside the backward pass
  automatic,  // one norm, C / (n + 0.01): no bound to tune (Bu et al. 2022)
  adaptive,   // one norm; C follows a quantile of the norms (Andrew et al. 2021)
};

/// Everything public about a run, fixed before the first step and recorded in the ledger.
struct TrainingPlan {
  double noise_multiplier = 1.0;     // standard deviation of the noise / max_grad_norm; 0: no noise, epsilon infinite
  double max_grad_norm = 1.0;
  double expected_batch_size = 0;    // what the noisy sum is divided by under LossReduction::mean
  BatchLaw batches{};                // how batches are drawn, and so what they cost
  LossReduction loss_reduction = LossReduction::mean;
  bool batch_first = true;
  bool forward_is_checked = false;   // see CaptureOptions
  std::optional<double> target_delta;
  std::optional<double> target_epsilon;
  std::string dataset = "default", purpose, actor;
  Clipping clipping = Clipping::flat;
  std::vector<double> layer_norms{};     // of per_layer: a bound for each group; max_grad_norm is the root of their squares
  std::vector<std::size_t> layer_of{};   // of per_layer: each parameter's group
  AdaptiveClippingOptions adaptive{};    // of adaptive
  bool unchecked_loss = false;           // see CaptureOptions
  // certified: batches of one sample, clipped and summed in integers, exact noise (docs/proofs/certified_sensitivity.md). Flat
  // clipping only.
  Sensitivity sensitivity = Sensitivity::empirical;
  NoiseSampler noise_sampler = NoiseSampler::fast;
  std::optional<std::uint64_t> insecure_seed{};  // repeatable batches and noise: NO PRIVACY, recorded and shown as such
  std::vector<std::size_t> parameter_sizes{};    // coordinates of each private parameter

  /// @throws InvalidArgument naming the first field outside its domain.
  void check() const;
  /// How far the noise of one step is from the ideal one: nothing with exact noise.
  NoisePrecision noise_precision() const;
  /// What one step, or one epoch (BatchLaw::charged_once_an_epoch), is charged as.
  Event charged_event() const { return batches.event(noise_multiplier, noise_precision()); }
  /// Everything that `epochs` epochs are charged as.
  Event charged_event_of(std::int64_t epochs) const;
  /// The smallest noise multiplier with which `epochs` epochs cost at most target_epsilon. @throws InvalidArgument where none does.
  double calibrated_noise(double target_epsilon, double target_delta, std::int64_t epochs) const;
  std::string to_json() const;
  CaptureOptions capture_options() const;
};

/// Parameters in, noisy gradients out.
///
///   indices = draw();  begin_batch(n);  watch(model(x));  loss.backward();  step();  optimizer.step()
///
/// Guarantee: after step() every private parameter's gradient is a NoisySum (scaled by 1 / expected_batch_size for mean
/// losses) whose event is durably in the ledger; before it, no gradient is there. If step() throws, nothing was released,
/// the parameters are as before, and no sum is left behind.
///
/// With ranks several processes train one model (docs/distributed.md). Each draws the same batches and takes its share of the
/// records, so that no record is in two processes at a step; the clipped sums are added up on the first process, which charges and adds
/// the noise once, and every process steps with the same gradients. An error in one process ends the step in all.
class PrivateTraining {
 public:
  /// ignored: trainable tensors of the model that no private optimizer steps. They get no gradient at all, so that
  /// nothing un-noised can be read or stepped from them.
  /// ranks: null for one process. Otherwise collective; the parameters become the first process's. Only the first process's ledger
  /// is used; the others keep its charges in memory. @throws InvalidArgument where the processes' plans or models differ.
  PrivateTraining(TrainingPlan plan, std::vector<at::Tensor> parameters, std::vector<std::string> names,
                  std::vector<at::Tensor> ignored, std::shared_ptr<Ledger> ledger, std::shared_ptr<Ranks> ranks = nullptr);

  struct Draw {
    std::int64_t epoch;  // 0 where there are none
    Batch records;       // may be empty
    std::vector<std::int64_t> sizes;  // of Sampling::users: how many of the records each user has, one user after the other
  };
  /// The next batch of the plan's law; with ranks, this process's share of it.
  Draw draw();
  /// A new pass over the data begins; what is left of the last is not drawn any more. Nothing for Poisson batches.
  void begin_epoch();

  /// size: samples (of Sampling::users: users, each with as many rows as the others); at most one under certified sensitivity.
  /// epoch: as drawn.
  /// @throws InvalidArgument, InvalidState (see GraphCapture::begin_batch).
  void begin_batch(std::int64_t size, std::int64_t epoch = 0);
  bool watch(const std::vector<at::Tensor>& outputs) { return capture_.watch(outputs); }
  /// See GraphCapture::suspicion().
  const std::string& suspicion() const { return capture_.suspicion(); }
  /// See GraphCapture::check_derivatives().
  bool needs_derivatives() const { return capture_.needs_derivatives(); }
  void check_derivatives(const std::vector<at::Tensor>& outputs, bool of_part = false) { capture_.check_derivatives(outputs, of_part); }
  /// See GraphCapture::check_loss().
  void check_loss(const std::vector<at::Tensor>& losses, const std::vector<at::Tensor>& gradients) { capture_.check_loss(losses, gradients); }
  bool has_gradients() const { return capture_.has_gradients(); }
  /// Clips the current physical batch and adds it to the logical batch.
  void accumulate();
  void discard(bool all);

  /// Ends the logical batch: charge, noise, gradients. Call after accumulate(). Collective with ranks.
  /// @throws BudgetExceeded (nothing released), LedgerError, InvalidState, PrivacyViolation (more steps than the epoch has; processes
  /// that clip to different bounds).
  void step();

  /// Changes what the following steps do and are charged. Only public knowledge may decide it: a schedule, never the data.
  /// max_grad_norm: not under per_layer or adaptive clipping. @throws InvalidArgument, InvalidState.
  void set_noise_multiplier(double noise_multiplier);
  void set_max_grad_norm(double max_grad_norm);
  /// Of the next step. Under adaptive clipping it moves; what moves it is released with noise.
  double max_grad_norm() const;

  /// Epsilon of this run at delta: (lower, upper).
  Interval epsilon(double delta) const { return ledger_->run_spent(run_id_, delta); }
  /// Every charge of this run as one event.
  Event history() const { return ledger_->run_history(run_id_); }
  std::int64_t steps() const { return steps_; }
  /// Events in the ledger: one a step, or one an epoch (BatchLaw::charged_once_an_epoch).
  std::int64_t charges() const { return charges_; }
  /// In the ledger that is charged.
  const std::string& run_id() const { return shared_run_id_.empty() ? run_id_ : shared_run_id_; }
  const TrainingPlan& plan() const { return plan_; }
  const std::shared_ptr<Ledger>& ledger() const { return ledger_; }
  /// Marks the run "completed" or "failed" in the ledger. Never changes what was spent.
  void finish(const std::string& status) { ledger_->finish_run(run_id_, status); }

 private:
  /// What was charged for an epoch, and how many of its steps were released.
  struct EpochCharge {
    std::optional<double> noise_multiplier;
    std::int64_t steps = 0;
  };

  /// What was charged, if anything was: the epoch may be paid for.
  std::optional<Event> charge();
  NoisySum add_noise(std::vector<at::Tensor>& sums);
  void agree_on_run(const std::vector<std::string>& names);
  void share(Draw& draw) const;
  void step_alone();
  void step_together();
  std::string step_of_first(ClippedSum&& sum, std::optional<ClippedSum>&& unclipped, std::optional<NoisySum>& noisy);
  NoisySum noised(ClippedSum&& sum);
  void move_bound(ClippedSum&& unclipped);
  Csprng& rng() { return insecure_ ? insecure_->stream() : rng_; }
  Csprng& batches_rng() { return shared_ ? shared_->stream() : rng(); }
  double scale() const { return plan_.loss_reduction == LossReduction::mean ? 1.0 / plan_.expected_batch_size : 1.0; }

  TrainingPlan plan_;
  Event event_;
  std::vector<at::Tensor> parameters_;
  GraphCapture capture_;
  std::shared_ptr<Ledger> ledger_;
  std::shared_ptr<Ranks> ranks_;          // null: one process
  std::string run_id_, shared_run_id_;    // in ledger_; in the first process's, where that is another
  std::unique_ptr<Sampler> sampler_;
  EpochSampler* epochs_ = nullptr;  // sampler_, where it goes by epochs
  const UserBatches* users_ = nullptr;  // sampler_, where it draws users
  std::unordered_map<std::int64_t, EpochCharge> charged_;
  std::int64_t epoch_ = 0;          // of the current batch
  std::optional<AdaptiveClipping> adaptive_;
  std::unique_ptr<CertifiedPass> certified_;
  std::int64_t certified_batches_ = 0;  // physical batches in the pass
  std::unique_ptr<InsecureSeed> insecure_;
  std::unique_ptr<SharedStream> shared_;  // of the batches, with ranks
  Csprng rng_;
  std::int64_t steps_ = 0, charges_ = 0;
};

}  // namespace hushgrad
