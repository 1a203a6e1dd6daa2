#include "torch_ext/privacy_engine.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <unordered_set>
#include <utility>

#include "accounting/access/run_approvals.h"
#include "accounting/accountants/accountant.h"
#include "dpcore/error.h"
#include "dpcore/keys/keyring.h"
#include "torch_ext/checkpoint/module_state.h"
#include "torch_ext/checkpoint/recorded.h"
#include "torch_ext/checkpoint/tensor_codec.h"

namespace hushgrad {

namespace {

void identify(Ledger& ledger, const PrivacyEngineOptions& options) {
  if (options.identity.empty()) {
    if (options.approvals.empty()) return;
    throw InvalidArgument("[PrivacyEngine] Expected an identity beside approvals, received none: they are given to the key that asked. Set identity "
                          "to its path.");
  }
  const auto key = std::make_shared<const SigningKey>(SigningKey::load(options.identity));
  ledger.identify(key);
  std::vector<std::string> texts;
  for (const std::string& path : options.approvals) texts.push_back(approval_file(path));
  for (const auto& [operation, approvals] : approvals_of_run(texts, options.dataset, options.purpose, key->public_key().id())) {
    ledger.present(operation, approvals);
  }
}

/// "block.0.weight" and "block.0.bias" are of one layer.
void share_among_layers(TrainingPlan& plan, const std::vector<std::string>& names) {
  std::vector<std::string> layers;
  for (const std::string& name : names) {
    const std::string layer = name.substr(0, name.find_last_of('.') == name.npos ? 0 : name.find_last_of('.'));
    const auto at = std::find(layers.begin(), layers.end(), layer);
    plan.layer_of.push_back(static_cast<std::size_t>(at - layers.begin()));
    if (at == layers.end()) layers.push_back(layer);
  }
  plan.layer_norms.assign(layers.size(), plan.max_grad_norm / std::sqrt(static_cast<double>(layers.size())));
}

void give_each_its_own(TrainingPlan& plan, const std::vector<double>& norms, std::size_t parameters) {
  if (norms.size() != parameters) {
    throw InvalidArgument(message("[make_private] Expected a bound for each of ", parameters,
                                  " private parameters, received ", norms.size(), "."));
  }
  double squares = 0;
  for (std::size_t p = 0; p < parameters; ++p) {
    plan.layer_of.push_back(p);
    squares += norms[p] * norms[p];
  }
  plan.layer_norms = norms;
  plan.max_grad_norm = std::sqrt(squares);
}

void refuse_unused(bool is_given, const char* name, const char* law) {
  if (!is_given) return;
  throw InvalidArgument(message("[make_private] Expected ", name, " with Sampling::", law,
                                " only, received it with another law: an option that nothing reads would look as if it held. Drop it, or name the law."));
}

BatchLaw law_of(const MakePrivateOptions& options) {
  refuse_unused(options.max_batch_size != 0 && options.sampling != Sampling::truncated_poisson, "max_batch_size", "truncated_poisson");
  refuse_unused(!options.owners.empty() && options.sampling != Sampling::users, "owners", "users");
  refuse_unused(options.max_records_per_user != 0 && options.sampling != Sampling::users, "max_records_per_user", "users");
  BatchLaw law{options.sampling, options.dataset_size, options.expected_batch_size, options.max_batch_size};
  if (options.sampling == Sampling::truncated_poisson && law.max_batch_size == 0) {
    law.max_batch_size = std::min(law.population, law.batch_size + static_cast<std::int64_t>(std::ceil(6 * std::sqrt(law.batch_size))));
  }
  if (options.sampling == Sampling::users) {
    if (static_cast<std::int64_t>(options.owners.size()) != options.dataset_size) {
      throw InvalidArgument(message("[make_private] Expected the owner of each of ", options.dataset_size, " rows, received ", options.owners.size(),
                                    ". Give owners one number a row."));
    }
    law.users = std::make_shared<const UserRecords>(options.owners, options.max_records_per_user);
    law.population = law.users->users();
  }
  law.check();
  return law;
}

void choose_clipping(TrainingPlan& plan, const MakePrivateOptions& options, const std::vector<std::string>& names) {
  plan.clipping = options.clipping;
  plan.unchecked_loss = options.unchecked_loss;
  plan.adaptive = options.adaptive;
  if (plan.clipping == Clipping::adaptive && plan.adaptive.unclipped_num_std == 0) {
    plan.adaptive.unclipped_num_std = std::max(plan.expected_batch_size / 20, plan.noise_multiplier);
  }
  if (plan.clipping != Clipping::per_layer) return;
  if (options.layer_norms.empty()) return share_among_layers(plan, names);
  give_each_its_own(plan, options.layer_norms, names.size());
}

/// Users with fewer rows first; the rows of each stay together.
void sort_by_size(PrivateTraining::Draw& draw) {
  std::vector<std::pair<std::int64_t, std::int64_t>> users;  // size, first row
  std::int64_t row = 0;
  for (const std::int64_t size : draw.sizes) {
    users.emplace_back(size, row);
    row += size;
  }
  std::sort(users.begin(), users.end());
  Batch sorted;
  sorted.reserve(draw.records.size());
  for (std::size_t i = 0; i < users.size(); ++i) {
    const auto [size, first] = users[i];
    draw.sizes[i] = size;
    sorted.insert(sorted.end(), draw.records.begin() + first, draw.records.begin() + first + size);
  }
  draw.records = std::move(sorted);
}

TrainingPlan calibrated(const TrainingPlan& plan, const MakePrivateOptions& options, const std::vector<std::string>& names,
                        const TargetOptions& target) {
  const auto with_noise = [&](double noise_multiplier) {
    TrainingPlan noisy = plan;
    noisy.noise_multiplier = noise_multiplier;
    choose_clipping(noisy, options, names);
    return noisy;
  };
  double noise_multiplier = with_noise(1e-3).calibrated_noise(target.target_epsilon, target.target_delta, target.epochs);
  // What follows from the noise multiplier (the noise on the count of adaptive clipping) may move the last digits.
  while (epsilon(with_noise(noise_multiplier).charged_event_of(target.epochs), target.target_delta).upper > target.target_epsilon) {
    noise_multiplier *= 1 + 1e-4;
  }
  return with_noise(noise_multiplier);
}

}  // namespace

PrivacyEngine::PrivacyEngine(PrivacyEngineOptions options)
    : options_(std::move(options)), ledger_(Ledger::open(options_.ledger)) {
  identify(*ledger_, options_);
  if (options_.actor.empty()) options_.actor = ledger_->actor();
}
PrivacyEngine::~PrivacyEngine() = default;

void PrivacyEngine::make_private(const Parameters& parameters, torch::optim::Optimizer& optimizer,
                                 const MakePrivateOptions& options) {
  begin(parameters, optimizer, options, nullptr);
}

void PrivacyEngine::make_private_with_epsilon(const Parameters& parameters,
                                              torch::optim::Optimizer& optimizer, const MakePrivateOptions& options,
                                              const TargetOptions& target) {
  if (target.epochs < 1 || !(target.target_epsilon > 0) || !(target.target_delta > 0 && target.target_delta < 1)) {
    throw InvalidArgument(message("[make_private_with_epsilon] Expected epochs >= 1, target_epsilon > 0 and target_delta in (0, 1), received ",
                                  target.epochs, ", ", target.target_epsilon, " and ", target.target_delta, "."));
  }
  begin(parameters, optimizer, options, &target);
}

void PrivacyEngine::begin(const Parameters& parameters, torch::optim::Optimizer& optimizer, const MakePrivateOptions& options,
                          const TargetOptions* target) {
  if (training_)
    throw InvalidState(
        "[make_private] Expected a new engine, received one that already trains. Make another "
        "PrivacyEngine.");
  if (options.dataset_size < 1 || options.expected_batch_size < 1 ||
      options.expected_batch_size > options.dataset_size) {
    throw InvalidArgument(
        message("[make_private] Expected 1 <= expected_batch_size <= dataset_size, received ",
                options.expected_batch_size, " and ", options.dataset_size, "."));
  }
  std::unordered_set<const c10::TensorImpl*> stepped, seen;
  for (const auto& group : optimizer.param_groups()) {
    for (const auto& p : group.params()) stepped.insert(p.unsafeGetTensorImpl());
  }
  std::vector<at::Tensor> private_parameters, ignored;
  std::vector<std::string> names;
  for (const auto& item : parameters) {
    const bool is_stepped = stepped.erase(item.value().unsafeGetTensorImpl()) > 0;
    if (!item.value().requires_grad() || !seen.insert(item.value().unsafeGetTensorImpl()).second)
      continue;  // tied: two names
    if (is_stepped) {
      private_parameters.push_back(item.value());
      names.push_back(item.key());
    } else {
      ignored.push_back(item.value());
    }
  }
  if (!stepped.empty()) {
    throw InvalidArgument(
        "[make_private] Expected every parameter of the optimizer to be among the module's, received one "
        "that is "
        "not. Build the optimizer from module->parameters().");
  }

  TrainingPlan plan;
  plan.max_grad_norm = options.max_grad_norm;
  plan.batches = law_of(options);
  plan.expected_batch_size = plan.batches.expected_batch_size();
  plan.loss_reduction = options.loss_reduction;
  plan.batch_first = options.batch_first;
  plan.dataset = options_.dataset;
  plan.purpose = options_.purpose;
  plan.actor = options_.actor;
  plan.noise_multiplier = options.noise_multiplier;
  for (const at::Tensor& p : private_parameters) plan.parameter_sizes.push_back(static_cast<std::size_t>(p.numel()));
  plan.noise_sampler = options.noise;
  if (target) {
    plan.target_epsilon = target->target_epsilon;
    plan.target_delta = target->target_delta;
    plan = calibrated(plan, options, names, *target);
  } else {
    choose_clipping(plan, options, names);
  }
  private_.clear();
  for (const auto& p : private_parameters) private_.insert(p.unsafeGetTensorImpl());
  training_ = std::make_unique<PrivateTraining>(std::move(plan), std::move(private_parameters),
                                                std::move(names), std::move(ignored), ledger_);
  optimizer_ = &optimizer;
}

void PrivacyEngine::refuse_foreign_gradients() const {
  for (const auto& group : optimizer_->param_groups()) {
    for (const auto& p : group.params()) {
      if (private_.contains(p.unsafeGetTensorImpl()) || !(p.requires_grad() || p.grad().defined())) continue;
      throw PrivacyViolation(
          "[step] Expected only private parameters to have gradients, received another one in the optimizer "
          "that is "
          "trainable or still has a gradient. Call make_private after the last add_param_group() and "
          "requires_grad_(true), and clear the gradients of frozen parameters.");
    }
  }
}

PrivateTraining& PrivacyEngine::training() const {
  if (training_) return *training_;
  throw InvalidState("[PrivacyEngine] Expected make_private() first, received none.");
}

bool PrivacyEngine::by_users() const { return training().plan().batches.sampling == Sampling::users; }

torch::Tensor PrivacyEngine::next_batch() {
  training().discard(true);
  part_ = -1;
  PrivateTraining::Draw draw = training().draw();
  if (by_users()) sort_by_size(draw);
  undone_ = static_cast<std::int64_t>(by_users() ? draw.sizes.size() : draw.records.size());
  user_sizes_ = std::move(draw.sizes);
  epoch_ = draw.epoch;
  rows_ = torch::tensor(draw.records, torch::kLong);
  return rows_;
}

std::vector<UserPart> PrivacyEngine::user_parts(std::int64_t max_users) const {
  if (!by_users() || undone_ < 0) {
    throw InvalidState("[user_parts] Expected a batch drawn by next_batch() under Sampling::users, received none. Watch batches of records whole, "
                       "or split their rows.");
  }
  if (max_users < 1) throw InvalidArgument(message("[user_parts] Expected max_users >= 1, received ", max_users, "."));
  std::vector<UserPart> parts;
  std::int64_t row = 0;
  for (auto user = user_sizes_.begin(); user != user_sizes_.end();) {
    const auto alike = std::upper_bound(user, user_sizes_.end(), *user) - user;
    const std::int64_t users = std::min<std::int64_t>(alike, max_users), rows = users * *user;
    parts.push_back({rows_.narrow(0, row, rows), users});
    row += rows;
    user += users;
  }
  if (parts.empty()) parts.push_back({rows_, 0});
  return parts;
}

std::int64_t PrivacyEngine::steps_per_epoch() const {
  return training().plan().batches.steps_per_epoch();
}

void PrivacyEngine::watch(const torch::Tensor& output, std::int64_t batch_size) {
  watch(std::vector<torch::Tensor>{output}, batch_size);
}

void PrivacyEngine::watch(const std::vector<torch::Tensor>& outputs, std::int64_t batch_size) {
  if (undone_ < 0)
    throw InvalidState(
        "[watch] Expected a batch drawn by next_batch(), received none. Batches of another law cost more "
        "than is charged.");
  if (part_ < 0) begin_part(batch_size);
  if (part_ != batch_size) {
    throw InvalidArgument(message("[watch] Expected one batch_size for all outputs of a part, received ",
                                  part_, " and ", batch_size,
                                  ". Call accumulate() between two parts of a virtual batch."));
  }
  if (by_users()) check_rows_of_users(outputs);
  training().watch(outputs);
}

void PrivacyEngine::begin_part(std::int64_t batch_size) {
  if (batch_size < 0 || batch_size > undone_) {
    throw InvalidArgument(message("[watch] Expected at most the ", by_users() ? "users" : "rows",
                                  " of the batch that no part has taken yet, received a batch_size of ", batch_size, "."));
  }
  if (by_users() && batch_size > 0) {
    const auto first = user_sizes_.end() - undone_;
    if (first[batch_size - 1] != *first) {
      throw InvalidArgument("[watch] Expected a part whose users have equally many rows, received users with different numbers: it would be unknown "
                            "which rows are whose. Go through user_parts().");
    }
    rows_each_ = *first;
  }
  training().begin_batch(batch_size, epoch_);
  undone_ -= batch_size;
  part_ = batch_size;
}

void PrivacyEngine::check_rows_of_users(const std::vector<torch::Tensor>& outputs) const {
  const std::int64_t dim = training().plan().batch_first ? 0 : 1;
  for (const torch::Tensor& output : outputs) {
    if (part_ == 0 || !output.defined() || !output.requires_grad() || output.dim() <= dim) continue;
    const std::int64_t rows = output.size(dim);
    // One row a user is what a model gives that reduces over a user's rows itself.
    if (rows == part_ || rows % (part_ * rows_each_) == 0) continue;
    throw InvalidArgument(message("[watch] Expected outputs of ", part_, " users with ", rows_each_, " rows each, received ", rows,
                                  " rows. batch_size counts users, and all of a user's rows go in at once: see user_parts()."));
  }
}

void PrivacyEngine::backward(const torch::Tensor& loss) {
  training().check_loss({loss}, {});
  loss.backward();
}

void PrivacyEngine::set_noise_multiplier(double noise_multiplier) { training().set_noise_multiplier(noise_multiplier); }
void PrivacyEngine::set_max_grad_norm(double max_grad_norm) { training().set_max_grad_norm(max_grad_norm); }
double PrivacyEngine::max_grad_norm() const { return training().max_grad_norm(); }

void PrivacyEngine::accumulate() {
  training().accumulate();
  part_ = -1;
}

void PrivacyEngine::step() {
  if (undone_ < 0)
    throw InvalidState(
        "[step] Expected a batch drawn by next_batch(), received none. Draw, watch and run backward before "
        "step().");
  refuse_foreign_gradients();
  if (part_ >= 0) accumulate();
  if (undone_ > 0)
    throw InvalidState(
        "[step] Expected every row of the batch in a part, received a batch that is not finished. Watch and "
        "accumulate the rest.");
  undone_ = -1;
  training().step();
  optimizer_->step();
}

double PrivacyEngine::get_epsilon(double delta) const { return training().epsilon(delta).upper; }
const std::string& PrivacyEngine::run_id() const { return training().run_id(); }
std::int64_t PrivacyEngine::steps() const { return training().steps(); }
void PrivacyEngine::finish(const std::string& status) { training().finish(status); }

Keyring PrivacyEngine::keyring() const {
  if (!options_.keyring.empty()) return Keyring::open(options_.keyring);
  throw InvalidState(
      "[checkpoint] Expected a keyring, received none. Create one with `hushgrad keys init PATH` and set "
      "PrivacyEngineOptions::keyring to PATH.");
}

void PrivacyEngine::save_checkpoint(const std::string& path, const torch::nn::Module& module,
                                    const torch::optim::Optimizer* optimizer, bool overwrite) const {
  const LedgerHead head = ledger_->head();
  SealedCore core;
  core.dataset = options_.dataset;
  core.run_id = training_ ? training_->run_id() : "";
  core.step = training_ ? training_->steps() : 0;
  core.plan_json = training_ ? training_->plan().to_json() : "{}";
  core.ledger_sequence = head.sequence;
  core.ledger_hash = head.hash;
  if (ledger_->durable()) core.ledger_id = ledger_->id();
  if (training_ && training_->plan().target_delta) {
    const double delta = *training_->plan().target_delta, epsilon = get_epsilon(delta);
    const nlohmann::json upper =
        std::isfinite(epsilon) ? nlohmann::json(epsilon) : nlohmann::json("infinity");
    core.epsilon_json =
        nlohmann::json{{"delta", delta}, {"durable", ledger_->durable()}, {"epsilon", upper}}.dump();
  }
  NamedTensors tensors;
  const std::string meta = encode_state(module, optimizer, tensors);
  SealedWriter writer = write_tensors(path, core, meta, tensors, keyring(),
                                      {.if_exists = overwrite ? IfExists::replace : IfExists::refuse});
  // Before the file is visible: a checkpoint that the ledger does not know was made by somebody else.
  if (ledger_->durable()) ledger_->record({"checkpoint", {{"digest", writer.digest()}, {"run", core.run_id}}});
  writer.publish();
}

void PrivacyEngine::load_checkpoint(const std::string& path, torch::nn::Module& module,
                                    torch::optim::Optimizer* optimizer) const {
  const auto trusted = [&](const SealedReader& reader) {
    const LedgerHead head{reader.core().ledger_sequence, reader.core().ledger_hash};
    if (head.sequence > 0 && !ledger_->expect(head)) {
      throw LedgerError(message("[load_checkpoint] Expected a ledger that holds entry ", head.sequence,
                                " as the checkpoint saw it, received "
                                "one that does not: the ledger is older than the checkpoint or another one. "
                                "Restore the newest ledger."));
    }
    if (reader.core().ledger_id.empty() || reader.core().ledger_id != ledger_->id()) return false;
    if (has_checkpoint(*ledger_, reader.digest())) return true;
    throw LedgerError(message("[load_checkpoint] Expected ", path,
                              " to be as the ledger recorded it, received a file that was written or changed by "
                              "somebody else who has the key. Do not use it; restore the original."));
  };
  const auto places = [&](const SealedReader& reader) { return places_of(reader, module); };
  decode_state(load_tensors(path, keyring(), trusted, places), module, optimizer);
}

}  // namespace hushgrad
