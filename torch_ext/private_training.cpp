#include "torch_ext/private_training.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "accounting/calibrate.h"
#include "dpcore/error.h"
#include "dpcore/noise/lattice_gaussian.h"
#include "torch_ext/distributed/outcome.h"
#include "torch_ext/distributed/shared_sum.h"

namespace hushgrad {
namespace {

void require(bool holds, const char* name, const char* expected, double received) {
  if (holds) return;
  throw InvalidArgument(message("[plan] Expected ", name, " ", expected, ", received ", received, "."));
}

const char* name_of(Clipping clipping) {
  switch (clipping) {
    case Clipping::flat: return "flat";
    case Clipping::per_layer: return "per_layer";
    case Clipping::automatic: return "automatic";
    case Clipping::adaptive: return "adaptive";
  }
  return "unknown";
}

std::vector<std::size_t> sizes_of(const std::vector<at::Tensor>& parameters) {
  std::vector<std::size_t> sizes;
  for (const at::Tensor& parameter : parameters) sizes.push_back(static_cast<std::size_t>(parameter.numel()));
  return sizes;
}

TrainingPlan with_sizes(TrainingPlan plan, const std::vector<at::Tensor>& parameters) {
  plan.parameter_sizes = sizes_of(parameters);
  plan.check();
  return plan;
}

}  // namespace

void TrainingPlan::check() const {
  require(std::isfinite(noise_multiplier) && noise_multiplier >= 0, "noise_multiplier", ">= 0 and finite", noise_multiplier);
  require(std::isfinite(max_grad_norm) && max_grad_norm > 0, "max_grad_norm", "> 0 and finite", max_grad_norm);
  batches.check();
  require(std::isfinite(expected_batch_size) && expected_batch_size > 0, "expected_batch_size", "> 0 and finite", expected_batch_size);
  if (sensitivity == Sensitivity::certified && clipping != Clipping::flat) {
    throw InvalidArgument("[plan] Expected clipping=\"flat\" with sensitivity=\"certified\", received another. Only flat clipping is proven.");
  }
  if (target_delta) require(*target_delta > 0 && *target_delta < 1, "target_delta", "in (0, 1)", *target_delta);
  if (clipping == Clipping::adaptive) (void)AdaptiveClipping(adaptive, max_grad_norm).gradient_noise_multiplier(noise_multiplier);
  if (clipping == Clipping::per_layer && layer_norms.empty()) {
    throw InvalidArgument("[plan] Expected layer_norms under per-layer clipping, received none. Give each group its max_grad_norm.");
  }
  if (target_epsilon) require(*target_epsilon > 0, "target_epsilon", "> 0", *target_epsilon);
}

NoisePrecision TrainingPlan::noise_precision() const {
  if (sensitivity == Sensitivity::certified || noise_sampler == NoiseSampler::exact) return {};
  if (clipping != Clipping::adaptive) return fast_noise_precision(noise_multiplier, parameter_sizes);
  // The count of unclipped samples is a release of its own.
  const AdaptiveClipping rule(adaptive, max_grad_norm);
  // A search for the noise multiplier also asks where the count alone would cost more; such a plan is refused by check().
  const bool possible = noise_multiplier < rule.count_noise_multiplier();
  const double gradient = possible ? rule.gradient_noise_multiplier(noise_multiplier) : noise_multiplier;
  NoisePrecision both = fast_noise_precision(gradient, parameter_sizes);
  const NoisePrecision count = fast_noise_precision(rule.count_noise_multiplier(), std::array<std::size_t, 1>{1});
  both.order = std::min(both.order, count.order);
  both.divergence = (both.divergence + count.divergence) * (1 + 1e-15);
  both.failure = (both.failure + count.failure) * (1 + 1e-15);
  return both;
}

Event TrainingPlan::charged_event_of(std::int64_t epochs) const {
  return Event::self_composed(charged_event(), batches.charged_once_an_epoch() ? epochs : epochs * batches.steps_per_epoch());
}

double TrainingPlan::calibrated_noise(double target_epsilon, double target_delta, std::int64_t epochs) const {
  TrainingPlan plan = *this;
  const auto event_of = [&](double z) {
    plan.noise_multiplier = z;
    return plan.charged_event_of(epochs);
  };
  return calibrate_noise_of(event_of, target_epsilon, target_delta);
}

std::string TrainingPlan::to_json() const {
  nlohmann::json plan = {
      {"noise_multiplier", noise_multiplier},
      {"max_grad_norm", max_grad_norm},
      {"expected_batch_size", expected_batch_size},
      {"sampling", std::string(name_of(batches.sampling))},
      {"dataset_size", batches.users ? batches.users->records() : batches.population},
      {"loss_reduction", loss_reduction == LossReduction::mean ? "mean" : "sum"},
      {"clipping", name_of(clipping)},
      {"loss", unchecked_loss ? "unchecked" : "checked"},
      {"adjacency", "add_or_remove_one"},
      {"sensitivity", sensitivity == Sensitivity::certified ? "certified" : "empirical"},
      {"noise", sensitivity == Sensitivity::certified || noise_sampler == NoiseSampler::exact ? "exact_lattice_gaussian" : "lattice_gaussian"},
      {"random", insecure_seed ? "insecure-seed" : "aes-256-ctr-drbg"},
  };
  if (batches.has_rate()) plan["sampling_rate"] = batches.rate().charged();
  if (batches.sampling == Sampling::truncated_poisson) plan["max_batch_size"] = batches.max_batch_size;
  if (batches.sampling == Sampling::users) {
    plan["unit"] = "user";
    plan["max_records_per_user"] = batches.users->max_records_per_user();
  }
  if (clipping == Clipping::per_layer) plan["layer_norms"] = layer_norms;
  if (clipping == Clipping::adaptive) {
    plan["adaptive"] = {{"target_unclipped_quantile", adaptive.target_unclipped_quantile},
                        {"clipbound_learning_rate", adaptive.clipbound_learning_rate},
                        {"min_clipbound", adaptive.min_clipbound},
                        {"max_clipbound", adaptive.max_clipbound},
                        {"unclipped_num_std", adaptive.unclipped_num_std}};
  }
  if (target_delta) plan["target_delta"] = *target_delta;
  if (target_epsilon) plan["target_epsilon"] = *target_epsilon;
  return plan.dump();
}

CaptureOptions TrainingPlan::capture_options() const {
  CaptureOptions options{max_grad_norm, loss_reduction, batch_first, forward_is_checked};
  if (clipping == Clipping::automatic) options.clipping_function = ClippingFunction::normalise;
  if (clipping == Clipping::per_layer) {
    options.group_norms = layer_norms;
    options.group_of = layer_of;
  }
  options.unchecked_loss = unchecked_loss;
  // Certified clipping takes each sample's gradient as it is.
  if (sensitivity == Sensitivity::certified) options.max_grad_norm = std::numeric_limits<double>::max();
  return options;
}

PrivateTraining::PrivateTraining(TrainingPlan plan, std::vector<at::Tensor> parameters, std::vector<std::string> names,
                                 std::vector<at::Tensor> ignored, std::shared_ptr<Ledger> ledger, std::shared_ptr<Ranks> ranks)
    : plan_(with_sizes(std::move(plan), parameters)),
      event_(plan_.charged_event()),
      parameters_(parameters),
      capture_(std::move(parameters), names, std::move(ignored), plan_.capture_options()),
      ledger_(std::move(ledger)),
      ranks_(std::move(ranks)) {
  if (parameters_.empty()) throw InvalidArgument("[make_private] Expected at least one trainable parameter, received none.");
  if (plan_.clipping == Clipping::adaptive) adaptive_.emplace(plan_.adaptive, plan_.max_grad_norm);
  sampler_ = plan_.batches.make_sampler();
  epochs_ = dynamic_cast<EpochSampler*>(sampler_.get());
  users_ = dynamic_cast<const UserBatches*>(sampler_.get());
  if (plan_.insecure_seed) insecure_ = std::make_unique<InsecureSeed>(*plan_.insecure_seed);
  if (plan_.sensitivity == Sensitivity::certified) certified_ = std::make_unique<CertifiedPass>(plan_.max_grad_norm, sizes_of(parameters_));
  if (ranks_) {
    agree_on_run(names);
    return;
  }
  run_id_ = ledger_->begin_run({plan_.dataset, plan_.purpose, plan_.actor, plan_.to_json()});
}

PrivateTraining::Draw PrivateTraining::draw() {
  Batch records = sampler_->draw(batches_rng());
  Draw draw{epochs_ ? epochs_->epoch() : 0, std::move(records), users_ ? users_->sizes() : std::vector<std::int64_t>{}};
  if (ranks_) share(draw);
  return draw;
}

void PrivateTraining::begin_epoch() {
  if (epochs_) epochs_->begin_epoch(batches_rng());
}

void PrivateTraining::begin_batch(std::int64_t size, std::int64_t epoch) {
  if (certified_ && size > 1) {
    throw InvalidState(message("[begin_batch] Expected batches of at most one sample with sensitivity=\"certified\", received ", size,
                               ". Iterate over the loader that make_private returned; it hands samples out one by one."));
  }
  capture_.begin_batch(size);
  epoch_ = epoch;
}

void PrivateTraining::accumulate() {
  capture_.accumulate();
  if (!certified_) return;
  (void)capture_.finish();  // the gradient of one sample, not clipped yet
  std::vector<at::Tensor> gradient = capture_.take_sums();
  capture_.discard(true);
  CertifiedPass::Gradient parts;
  for (const at::Tensor& part : gradient) parts.emplace_back(part.const_data_ptr<float>(), static_cast<std::size_t>(part.numel()));
  certified_->add(parts);
  ++certified_batches_;
}

void PrivateTraining::discard(bool all) {
  capture_.discard(all);
  if (!all || certified_batches_ == 0) return;
  certified_->discard();
  certified_batches_ = 0;
}

// Durable before any noise exists.
std::optional<Event> PrivateTraining::charge() {
  if (!plan_.batches.charged_once_an_epoch()) {
    ledger_->charge_step(run_id_, event_);
    ++charges_;
    return event_;
  }
  if (epoch_ < 1 || epoch_ > epochs_->epoch()) {
    throw InvalidState("[step] Expected a batch that draw() gave, received another. Iterate over the loader that make_private returned.");
  }
  EpochCharge& epoch = charged_[epoch_];
  if (epoch.steps == plan_.batches.steps_per_epoch()) {
    throw PrivacyViolation(message("[step] Expected at most ", epoch.steps, " steps in an epoch, received one more: a record would count "
                                   "twice. Take each batch of the loader once."));
  }
  const double now = plan_.noise_multiplier;
  std::optional<Event> charged;
  if (epoch.noise_multiplier != now) {
    charged = epoch.noise_multiplier ? plan_.batches.event_of_change(*epoch.noise_multiplier, now, plan_.noise_precision()) : event_;
    ledger_->charge(run_id_, *charged);
    ++charges_;
    epoch.noise_multiplier = now;
  }
  ++epoch.steps;
  return charged;
}

NoisySum PrivateTraining::add_noise(std::vector<at::Tensor>& sums) {
  if (!certified_) {
    ClippedSum sum = capture_.finish();
    sums = capture_.take_sums();
    capture_.discard(true);
    (void)charge();
    return noised(std::move(sum));
  }
  if (certified_batches_ == 0) {
    throw InvalidState("[step] Expected at least one sample or empty batch since the last step, received none. Run forward and backward "
                       "before step().");
  }
  CertifiedSum sum = certified_->finish();
  certified_batches_ = 0;
  capture_.discard(true);
  (void)charge();
  std::vector<SumPart> parts;
  for (const at::Tensor& parameter : parameters_) {
    sums.push_back(at::empty(parameter.sizes(), at::kFloat));
    parts.emplace_back(sums.back().data_ptr<float>(), static_cast<std::size_t>(sums.back().numel()));
  }
  return Noise::add(std::move(sum), plan_.noise_multiplier, scale(), rng(), std::move(parts));
}

NoisySum PrivateTraining::noised(ClippedSum&& sum) {
  const double noise_multiplier = adaptive_ ? adaptive_->gradient_noise_multiplier(plan_.noise_multiplier) : plan_.noise_multiplier;
  return Noise::add(std::move(sum), noise_multiplier, scale(), rng(), plan_.noise_sampler);
}

// Adaptive clipping's second release of the step.
void PrivateTraining::move_bound(ClippedSum&& unclipped) {
  adaptive_->update(Noise::add(std::move(unclipped), adaptive_->count_noise_multiplier(), 1.0, rng(), plan_.noise_sampler), plan_.expected_batch_size);
  capture_.set_max_grad_norm(adaptive_->max_grad_norm());
}

void PrivateTraining::step() {
  ranks_ ? step_together() : step_alone();
  ++steps_;
}

void PrivateTraining::step_alone() {
  std::vector<at::Tensor> sums;
  const NoisySum noisy = add_noise(sums);
  SharedSum::give(noisy, std::move(sums), nullptr).become_gradients(parameters_);
  if (!adaptive_) return;
  float count = 0;
  move_bound(capture_.finish_count(count));
}

void PrivateTraining::set_noise_multiplier(double noise_multiplier) {
  TrainingPlan changed = plan_;
  changed.noise_multiplier = noise_multiplier;
  if (adaptive_) changed.max_grad_norm = adaptive_->max_grad_norm();
  changed.check();
  plan_.noise_multiplier = noise_multiplier;
  event_ = plan_.charged_event();
}

void PrivateTraining::set_max_grad_norm(double max_grad_norm) {
  if (certified_) {
    throw InvalidState("[max_grad_norm] Expected one bound for the whole run with sensitivity=\"certified\", received a new one. Make a new engine.");
  }
  if (adaptive_ || plan_.clipping == Clipping::per_layer) {
    throw InvalidState(message("[max_grad_norm] Expected clipping \"flat\" or \"automatic\", received a new bound under \"", name_of(plan_.clipping),
                               "\". Leave it to the adaptive rule, or make a new engine with other bounds."));
  }
  TrainingPlan changed = plan_;
  changed.max_grad_norm = max_grad_norm;
  changed.check();
  capture_.set_max_grad_norm(max_grad_norm);
  plan_.max_grad_norm = max_grad_norm;
}

double PrivateTraining::max_grad_norm() const { return adaptive_ ? adaptive_->max_grad_norm() : plan_.max_grad_norm; }

}  // namespace hushgrad
