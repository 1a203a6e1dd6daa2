// The parts of PrivateTraining that concern several processes.
#include <nlohmann/json.hpp>

#include "dpcore/error.h"
#include "torch_ext/distributed/outcome.h"
#include "torch_ext/distributed/shared_sum.h"
#include "torch_ext/private_training.h"

namespace hushgrad {
namespace {

/// What has to be the same in every process for the sums to add up to what is charged.
std::string description(const TrainingPlan& plan, const std::vector<at::Tensor>& parameters, const std::vector<std::string>& names) {
  nlohmann::json shapes = nlohmann::json::array();
  for (std::size_t p = 0; p < parameters.size(); ++p) {
    shapes.push_back({names[p], parameters[p].sizes().vec(), c10::toString(parameters[p].scalar_type())});
  }
  return nlohmann::json{{"plan", plan.to_json()}, {"dataset", plan.dataset}, {"parameters", shapes}}.dump();
}

std::string list_of(const std::vector<int>& ranks) {
  std::string list;
  for (const int rank : ranks) list += (list.empty() ? "" : ", ") + std::to_string(rank);
  return list;
}

template <typename Holds>
std::vector<int> ranks_where(const std::vector<std::vector<double>>& all, Holds&& holds) {
  std::vector<int> ranks;
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (holds(all[i])) ranks.push_back(static_cast<int>(i));
  }
  return ranks;
}

std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }

}  // namespace

void PrivateTraining::agree_on_run(const std::vector<std::string>& names) {
  if (certified_) {
    throw Unsupported("[make_private] Expected one process with sensitivity=\"certified\", received several. Train in one process, or use sensitivity=\"empirical\".");
  }
  const std::string own = description(plan_, parameters_, names);
  const bool same = ranks_->say(own) == own;
  const auto others = ranks_where(ranks_->gather({same ? 1.0 : 0.0}), [](const auto& said) { return said[0] == 0; });
  if (!others.empty()) {
    throw InvalidArgument(message("[make_private] Expected the same model, loader and arguments in every process, received others in rank ", list_of(others),
                                  " than in rank 0. Build all of them alike; each process sees the whole data set."));
  }
  // Without a check it would show in the accuracy only.
  std::vector<at::Tensor> parameters = parameters_;
  ranks_->copy_from_first(parameters);

  nlohmann::json begun = {{"run", ""}};
  std::exception_ptr refused;
  if (ranks_->first()) {
    try {
      run_id_ = ledger_->begin_run({plan_.dataset, plan_.purpose, plan_.actor, plan_.to_json()});
      begun["run"] = run_id_;
    } catch (...) {
      refused = std::current_exception();
    }
  }
  const std::string outcome = ranks_->say(refused ? told(refused) : begun.dump());
  if (refused) std::rethrow_exception(refused);
  throw_told(outcome);
  shared_run_id_ = nlohmann::json::parse(outcome).at("run").get<std::string>();
  if (!ranks_->first()) {
    ledger_ = Ledger::open(":memory:");
    run_id_ = ledger_->begin_run({plan_.dataset, "", "", plan_.to_json()});
  }

  SharedKey key(rng());
  std::string text(reinterpret_cast<const char*>(key.bytes().data()), SharedKey::kBytes);
  std::string agreed = ranks_->say(text);
  shared_ = std::make_unique<SharedStream>(SharedKey::received(bytes_of(agreed)));
  wipe(std::as_writable_bytes(std::span(text)));
  wipe(std::as_writable_bytes(std::span(agreed)));
}

// Every size-th record, or user, beginning with this process's: shares are disjoint, and alike in size.
void PrivateTraining::share(Draw& draw) const {
  const auto size = static_cast<std::size_t>(ranks_->size()), rank = static_cast<std::size_t>(ranks_->rank());
  Batch records;
  if (!users_) {
    for (std::size_t i = rank; i < draw.records.size(); i += size) records.push_back(draw.records[i]);
    draw.records = std::move(records);
    return;
  }
  std::vector<std::int64_t> sizes;
  auto begin = draw.records.begin();
  for (std::size_t user = 0; user < draw.sizes.size(); begin += draw.sizes[user++]) {
    if (user % size != rank) continue;
    sizes.push_back(draw.sizes[user]);
    records.insert(records.end(), begin, begin + draw.sizes[user]);
  }
  draw.records = std::move(records);
  draw.sizes = std::move(sizes);
}

std::string PrivateTraining::step_of_first(ClippedSum&& sum, std::optional<ClippedSum>&& unclipped, std::optional<NoisySum>& noisy) {
  nlohmann::json outcome = nlohmann::json::object();
  if (const std::optional<Event> charged = charge()) outcome["charged"] = charged->to_json();
  noisy = noised(std::move(sum));
  if (!unclipped) return outcome.dump();
  move_bound(std::move(*unclipped));
  outcome["max_grad_norm"] = adaptive_->max_grad_norm();
  return outcome.dump();
}

void PrivateTraining::step_together() {
  std::optional<ClippedSum> sum, unclipped;
  std::vector<at::Tensor> sums;
  std::exception_ptr failed;
  float count = 0;  // of samples that were not clipped, less half of all: what adaptive clipping needs, summed over the processes
  try {
    sum = capture_.finish();
    sums = capture_.take_sums();
    capture_.discard(true);
    if (adaptive_) unclipped = capture_.finish_count(count);
  } catch (...) {
    failed = std::current_exception();
    capture_.discard(true);
  }
  // The bounds are compared at each step: a schedule that differs between processes would clip to another bound than is charged.
  const auto all = ranks_->gather({failed ? 1.0 : 0.0, max_grad_norm(), plan_.noise_multiplier, static_cast<double>(epoch_), static_cast<double>(count)});
  if (failed) std::rethrow_exception(failed);
  if (const auto ranks = ranks_where(all, [](const auto& said) { return said[0] != 0; }); !ranks.empty()) {
    throw InvalidState(message("[step] Expected every process to have clipped its share of the batch, received an error in rank ", list_of(ranks),
                               ". Nothing was charged or released; see what it says there."));
  }
  const auto differs = [&](const auto& said) { return said[1] != all[0][1] || said[2] != all[0][2] || said[3] != all[0][3]; };
  if (const auto ranks = ranks_where(all, differs); !ranks.empty()) {
    throw PrivacyViolation(message("[step] Expected the same max_grad_norm, noise_multiplier and epoch in every process, received others in rank ",
                                   list_of(ranks), " than in rank 0. Change them by one schedule that all processes run."));
  }
  ranks_->sum_to_first(sums);
  if (adaptive_) {
    double total = 0;
    for (const auto& said : all) total += said[4];
    count = static_cast<float>(total);
  }

  std::optional<NoisySum> noisy;
  std::exception_ptr refused;
  std::string outcome;
  if (ranks_->first()) {
    try {
      outcome = step_of_first(std::move(*sum), std::move(unclipped), noisy);
    } catch (...) {
      refused = std::current_exception();
      outcome = told(refused);
    }
  }
  outcome = ranks_->say(outcome);
  if (refused) std::rethrow_exception(refused);
  throw_told(outcome);
  if (ranks_->first()) return SharedSum::give(*noisy, std::move(sums), ranks_.get()).become_gradients(parameters_);

  const nlohmann::json said = nlohmann::json::parse(outcome);
  if (said.contains("charged")) {
    ledger_->charge(run_id_, Event::from_json(said.at("charged").get<std::string>()));
    ++charges_;
  }
  if (adaptive_) {
    adaptive_.emplace(plan_.adaptive, said.at("max_grad_norm").get<double>());
    capture_.set_max_grad_norm(adaptive_->max_grad_norm());
  }
  SharedSum::take(std::move(sums), *ranks_).become_gradients(parameters_);
}

}  // namespace hushgrad
