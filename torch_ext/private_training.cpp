#include "torch_ext/private_training.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "dpcore/error.h"
#include "dpcore/noise/lattice_gaussian.h"

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

/// The only way in which a gradient comes to be: `noisy` views the memory of `sums`.
void become_gradients(const NoisySum& noisy, std::vector<at::Tensor> sums, const std::vector<at::Tensor>& parameters) {
  for (std::size_t p = 0; p < parameters.size(); ++p) {
    if (noisy.parts()[p].data() != sums[p].data_ptr<float>()) {
      throw PrivacyViolation("[step] Expected the noisy sum of these parameters, received another one.");
    }
    at::Tensor parameter = parameters[p];
    parameter.mutable_grad() = sums[p].to(parameter.options().requires_grad(false));
  }
}

}  // namespace

void TrainingPlan::check() const {
  require(std::isfinite(noise_multiplier) && noise_multiplier >= 0, "noise_multiplier", ">= 0 and finite", noise_multiplier);
  require(std::isfinite(max_grad_norm) && max_grad_norm > 0, "max_grad_norm", "> 0 and finite", max_grad_norm);
  require(dataset_size >= 1, "dataset_size", ">= 1", static_cast<double>(dataset_size));
  require(std::isfinite(expected_batch_size) && expected_batch_size > 0, "expected_batch_size", "> 0 and finite", expected_batch_size);
  if (sampling == Sampling::poisson) require(sampling_rate > 0 && sampling_rate <= 1, "sampling_rate", "in (0, 1]", sampling_rate);
  if (target_delta) require(*target_delta > 0 && *target_delta < 1, "target_delta", "in (0, 1)", *target_delta);
  if (clipping == Clipping::adaptive) (void)AdaptiveClipping(adaptive, max_grad_norm).gradient_noise_multiplier(noise_multiplier);
  if (clipping == Clipping::per_layer && layer_norms.empty()) {
    throw InvalidArgument("[plan] Expected layer_norms under per-layer clipping, received none. Give each group its max_grad_norm.");
  }
  if (target_epsilon) require(*target_epsilon > 0, "target_epsilon", "> 0", *target_epsilon);
}

Event TrainingPlan::step_event() const {
  if (noise_multiplier == 0) return Event::non_private();
  if (sampling == Sampling::poisson) return Event::poisson_sampled(sampling_rate, Event::gaussian(noise_multiplier));
  // Batches of unknown law: any record may be in any batch, and adding or removing one may put another in its place, which
  // moves the sum by 2C. Half the multiplier says that without amplification.
  return Event::gaussian(noise_multiplier / 2);
}

std::string TrainingPlan::to_json() const {
  nlohmann::json plan = {
      {"noise_multiplier", noise_multiplier},
      {"max_grad_norm", max_grad_norm},
      {"expected_batch_size", expected_batch_size},
      {"sampling", sampling == Sampling::poisson ? "poisson" : "any"},
      {"dataset_size", dataset_size},
      {"loss_reduction", loss_reduction == LossReduction::mean ? "mean" : "sum"},
      {"clipping", name_of(clipping)},
      {"loss", unchecked_loss ? "unchecked" : "checked"},
      {"adjacency", sampling == Sampling::poisson ? "add_or_remove_one" : "replace_one"},
      {"sensitivity", "empirical"},
      {"noise", "lattice_gaussian"},
      {"random", "aes-256-ctr-drbg"},
  };
  if (sampling == Sampling::poisson) plan["sampling_rate"] = sampling_rate;
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
  return options;
}

PrivateTraining::PrivateTraining(TrainingPlan plan, std::vector<at::Tensor> parameters, std::vector<std::string> names,
                                 std::vector<at::Tensor> ignored, std::shared_ptr<Ledger> ledger)
    : plan_((plan.check(), std::move(plan))),
      event_(plan_.step_event()),
      parameters_(parameters),
      capture_(std::move(parameters), std::move(names), std::move(ignored), plan_.capture_options()),
      ledger_(std::move(ledger)) {
  if (parameters_.empty()) throw InvalidArgument("[make_private] Expected at least one trainable parameter, received none.");
  if (plan_.clipping == Clipping::adaptive) adaptive_.emplace(plan_.adaptive, plan_.max_grad_norm);
  if (plan_.sampling == Sampling::poisson) sampler_.emplace(plan_.dataset_size, SamplingRate::from_double(plan_.sampling_rate));
  run_id_ = ledger_->begin_run({plan_.dataset, plan_.purpose, plan_.actor, plan_.to_json()});
}

std::vector<std::int64_t> PrivateTraining::draw() {
  if (sampler_) return sampler_->draw(rng_);
  throw InvalidState("[draw] Expected a plan with Poisson sampling, received one for the caller's own batches.");
}

void PrivateTraining::step() {
  ClippedSum sum = capture_.finish();
  std::vector<at::Tensor> sums = capture_.take_sums();
  capture_.discard(true);
  ledger_->charge_step(run_id_, event_);  // durable before any noise exists
  const double scale = plan_.loss_reduction == LossReduction::mean ? 1.0 / plan_.expected_batch_size : 1.0;
  const double noise_multiplier = adaptive_ ? adaptive_->gradient_noise_multiplier(plan_.noise_multiplier) : plan_.noise_multiplier;
  const NoisySum noisy = Noise::add(std::move(sum), noise_multiplier, scale, rng_);
  become_gradients(noisy, std::move(sums), parameters_);
  ++steps_;
  if (!adaptive_) return;
  float count = 0;
  adaptive_->update(Noise::add(capture_.finish_count(count), adaptive_->count_noise_multiplier(), 1.0, rng_), plan_.expected_batch_size);
  capture_.set_max_grad_norm(adaptive_->max_grad_norm());
}

void PrivateTraining::set_noise_multiplier(double noise_multiplier) {
  TrainingPlan changed = plan_;
  changed.noise_multiplier = noise_multiplier;
  if (adaptive_) changed.max_grad_norm = adaptive_->max_grad_norm();
  changed.check();
  plan_.noise_multiplier = noise_multiplier;
  event_ = plan_.step_event();
}

void PrivateTraining::set_max_grad_norm(double max_grad_norm) {
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
