#include "torch_ext/capture/clipped_sums.h"

#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <utility>

#include "dpcore/error.h"
#include "torch_ext/rules/tied.h"

namespace hushgrad {
namespace {

bool preserves_every_value(const Use& use) {
  for (const PathStep& step : use.path) {
    const std::string name = step.node->name();
    if (name != "TBackward0" && name != "ViewBackward0" && name != "UnsafeViewBackward0" && name != "ToCopyBackward0") return false;
  }
  return true;
}

ClippingPass new_pass(const CaptureOptions& options) {
  if (options.group_norms.empty()) return ClippingPass(options.max_grad_norm, options.clipping_function);
  return ClippingPass(options.group_norms, options.clipping_function);
}

}  // namespace

ClippedSums::ClippedSums(const ParameterIndex& parameters, const CaptureOptions& options)
    : parameters_(parameters), options_(options), pass_(new_pass(options)) {
  make_groups();
}

void ClippedSums::make_groups() {
  const std::size_t count = std::max<std::size_t>(1, options_.group_norms.size());
  group_of_ = options_.group_of.empty() ? std::vector<std::size_t>(parameters_.size(), 0) : options_.group_of;
  if (group_of_.size() != parameters_.size()) {
    throw InvalidArgument(message("[clipping] Expected a group for each of ", parameters_.size(), " parameters, received ", group_of_.size(), "."));
  }
  groups_.resize(count);
  for (std::size_t p = 0; p < group_of_.size(); ++p) {
    if (group_of_[p] >= count) throw InvalidArgument(message("[clipping] Expected groups below ", count, ", received ", group_of_[p], "."));
    groups_[group_of_[p]].push_back(p);
  }
  // A sum takes memory and then frees what it was made of. The first layer's comes last, as in ordinary training: its input is the data,
  // which is not freed, and a table of words is larger than what its gradient is made of.
  for (auto& group : groups_) std::reverse(group.begin(), group.end());
}

void ClippedSums::begin_batch(std::int64_t batch) {
  discard(false);
  batch_ = batch;
  of_parameter_.assign(parameters_.size(), {});
  of_group_.assign(groups_.size(), {});
}

void ClippedSums::expect(std::int64_t parameter) {
  ++of_parameter_[static_cast<std::size_t>(parameter)].expected;
  ++of_group_[group_of(parameter)].expected;
}

void ClippedSums::expect_late(std::int64_t parameter) {
  of_parameter_[static_cast<std::size_t>(parameter)].late = true;
  of_group_[group_of(parameter)].late = true;
}

void ClippedSums::expect(const Site& site) {
  for (const Use& use : site.uses) {
    if (use.parameter >= 0) {
      expect(use.parameter);
      continue;
    }
    for (const NodePtr& node : walk_graph({use.boundary}, parameters_, {}).nodes) {
      const auto p = parameters_.find(node.get());
      if (p >= 0 && !parameters_.ignored(p)) expect_late(p);
    }
  }
}

void ClippedSums::arrive(const Site& site, std::vector<std::unique_ptr<Contribution>> contributions) {
  for (std::size_t i = 0; i < site.uses.size(); ++i) {
    const Use& use = site.uses[i];
    if (contributions[i] && use.parameter >= 0) {
      arriving_.push_back({use, std::move(contributions[i]), {}});
      take_norms(arriving_.back());
    } else if (contributions[i]) {
      arriving_composites_.push_back({use.boundary, std::move(contributions[i])});
    }
    if (use.parameter < 0) continue;
    Pending& group = of_group_[group_of(use.parameter)];
    ++group.arrived;
    if (!group.finished) continue;
    throw Unsupported(message("[backward] Expected one backward pass a batch under per-layer clipping, received another one through '",
                              parameters_.name(static_cast<std::size_t>(use.parameter)), "', whose sum is finished. Add the losses up "
                              "and call backward() once, or use clipping=\"flat\"."));
  }
  for (const Use& use : site.uses) {
    if (use.parameter >= 0) finish_group_if_complete(group_of(use.parameter));
  }
}

void ClippedSums::take_norms(ParameterGradient& gradient) {
  const Pending& parameter = of_parameter_[static_cast<std::size_t>(gradient.use.parameter)];
  if (parameter.late || parameter.expected != 1) return;
  at::NoGradGuard no_grad;
  gradient.squared_norms = gradient.contribution->squared_norms();
}

void ClippedSums::keep_arrived() {
  std::move(arriving_.begin(), arriving_.end(), std::back_inserter(gradients_));
  std::move(arriving_composites_.begin(), arriving_composites_.end(), std::back_inserter(composites_));
  drop_arrived();
}

void ClippedSums::drop_arrived() {
  arriving_.clear();
  arriving_composites_.clear();
}

bool ClippedSums::has_gradients() const { return !gradients_.empty() || !composites_.empty() || !early_.empty(); }

// Under one bound for everything nothing is known before the last gradient: accumulate() finishes.
void ClippedSums::finish_group_if_complete(std::size_t group) {
  Pending& pending = of_group_[group];
  if (groups_.size() == 1 || pending.finished || pending.late || pending.arrived < pending.expected) return;
  const auto of_group = [&](const ParameterGradient& g) { return group_of(g.use.parameter) == group; };
  // What an earlier backward pass of this batch left of the group belongs to the same gradients.
  ParameterGradients gradients;
  for (auto* waiting : {&gradients_, &arriving_}) {
    for (ParameterGradient& gradient : *waiting) {
      if (of_group(gradient)) gradients.push_back(std::move(gradient));
    }
    std::erase_if(*waiting, [](const ParameterGradient& g) { return g.contribution == nullptr; });
  }
  if (early_.empty()) early_.resize(parameters_.size());
  finish_group(group, gradients, early_);
  pending.finished = true;
}

void ClippedSums::settle_composites() {
  if (composites_.empty()) return;
  // A subgraph of parameters is linear in its backprop: sample by sample from the boundaries to the parameters. All
  // boundaries go at once, since several may meet in one parameter.
  std::vector<Edge> roots, leaves;
  std::vector<at::Tensor> seeds;
  for (CompositeGradient& composite : composites_) {
    roots.push_back(composite.boundary);
    seeds.push_back(composite.contribution->per_sample());
  }
  std::vector<std::size_t> reached;
  const Walk walk = walk_graph(roots, parameters_, {});
  for (const NodePtr& node : walk.nodes) {
    if (const auto p = parameters_.find(node.get()); p >= 0 && !parameters_.ignored(p)) {
      reached.push_back(static_cast<std::size_t>(p));
      leaves.push_back(Edge(node, 0));
    }
  }
  std::vector<std::vector<at::Tensor>> gradients(leaves.size());
  for (std::int64_t b = 0; b < batch_; ++b) {
    variable_list inputs;
    for (std::size_t i = 0; i < seeds.size(); ++i) {
      const auto& metadata = roots[i].function->input_metadata(roots[i].input_nr);
      inputs.push_back(seeds[i][b].to(metadata.dtype().toScalarType()));
    }
    const variable_list out = torch::autograd::Engine::get_default_engine().execute(roots, inputs, true, false, false, leaves);
    for (std::size_t i = 0; i < leaves.size(); ++i) {
      gradients[i].push_back(out[i].defined() ? at_least_float(out[i]) : at::zeros_like(parameters_.parameter(reached[i]), at::kFloat));
    }
  }
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    Use use{0, leaves[i], static_cast<std::int64_t>(reached[i]), {}};
    gradients_.push_back({use, std::make_unique<Instantiated>(at::stack(gradients[i])), {}});
  }
  composites_.clear();
}

at::Tensor ClippedSums::per_sample_of(ParameterGradient& gradient) const {
  const at::Tensor boundary = gradient.contribution->per_sample();
  if (gradient.use.path.empty()) return boundary;
  std::vector<at::Tensor> rows;
  for (std::int64_t b = 0; b < batch_; ++b) rows.push_back(follow_path(gradient.use, boundary[b]));
  return at::stack(rows);
}

bool ClippedSums::same_path(const Use& x, const Use& y) {
  if (x.path.size() != y.path.size() || edge_sizes(x.boundary) != edge_sizes(y.boundary)) return false;
  for (std::size_t i = 0; i < x.path.size(); ++i) {
    if (x.path[i].node->name() != y.path[i].node->name()) return false;
  }
  return preserves_every_value(x) && preserves_every_value(y);
}

/// A table tied to output layers, or null with the uses as they were.
std::unique_ptr<Contribution> ClippedSums::tied_table(ParameterGradients& uses) {
  std::vector<TiedUse> candidates;
  for (ParameterGradient& use : uses) {
    const bool transposed = use.use.path.size() == 1 && use.use.path[0].node->name() == "TBackward0";
    if (!transposed && !use.use.path.empty()) break;
    candidates.push_back({std::move(use.contribution), transposed});
  }
  if (candidates.size() == uses.size()) {
    if (auto tied = tie(candidates)) return tied;
  }
  for (std::size_t i = 0; i < candidates.size(); ++i) uses[i].contribution = std::move(candidates[i].contribution);
  return nullptr;
}

// Several uses of one parameter are one gradient: its norm is not the sum of their norms.
std::unique_ptr<Contribution> ClippedSums::combined(ParameterGradients& uses) const {
  bool alike = true;
  for (const ParameterGradient& other : uses) alike = alike && same_path(uses[0].use, other.use);
  if (alike) {
    std::vector<std::unique_ptr<Contribution>> parts;
    for (ParameterGradient& use : uses) parts.push_back(std::move(use.contribution));
    if (auto merged = parts[0]->merge(parts)) return merged;
    for (std::size_t i = 0; i < uses.size(); ++i) uses[i].contribution = std::move(parts[i]);
  }
  if (auto tied = tied_table(uses)) {
    uses.resize(1);
    uses[0].use.path.clear();
    return tied;
  }
  at::Tensor total;
  for (ParameterGradient& use : uses) {
    const at::Tensor rows = per_sample_of(use);
    total = total.defined() ? total + rows : rows;
    use.contribution.reset();
  }
  uses.resize(1);
  uses[0].use.path.clear();
  return std::make_unique<Instantiated>(total);
}

/// ||g_b||^2 over the parameters of the group: [B] float64. Leaves one gradient a parameter.
at::Tensor ClippedSums::squared_norms_of(std::size_t group, std::vector<ParameterGradients>& by_parameter) {
  at::Tensor total = at::zeros({batch_}, at::kDouble);
  for (std::size_t p : groups_[group]) {
    auto& uses = by_parameter[p];
    if (uses.empty()) continue;
    if (uses.size() > 1) {
      uses[0].contribution = combined(uses);
      uses[0].squared_norms.reset();
    }
    const at::Tensor norms = uses[0].squared_norms.defined() ? uses[0].squared_norms : uses[0].contribution->squared_norms();
    total += norms.to(at::kCPU);
  }
  return total;
}

/// Norms over the group, factors, and one weighted sum a parameter, added to `sums`.
void ClippedSums::finish_group(std::size_t group, ParameterGradients& gradients, std::vector<at::Tensor>& sums) {
  std::vector<ParameterGradients> by_parameter(parameters_.size());
  for (ParameterGradient& gradient : gradients) by_parameter[static_cast<std::size_t>(gradient.use.parameter)].push_back(std::move(gradient));
  gradients.clear();

  at::Tensor squared_norms = squared_norms_of(group, by_parameter);
  // The criterion divided by the batch; a sample's own gradient is that much larger.
  const double scale = options_.loss_reduction == LossReduction::mean ? static_cast<double>(batch_) : 1.0;
  squared_norms *= scale * scale;
  const auto clip = pass_.factors({squared_norms.const_data_ptr<double>(), static_cast<std::size_t>(batch_)}, group);
  at::Tensor factors = at::empty({batch_}, at::kFloat);
  for (std::int64_t b = 0; b < batch_; ++b) factors.data_ptr<float>()[b] = static_cast<float>(clip.factors[b] * scale);

  for (std::size_t p : groups_[group]) {
    if (by_parameter[p].empty()) continue;
    const at::Tensor& parameter = parameters_.parameter(p);
    ParameterGradient& gradient = by_parameter[p][0];
    SampleFactors on_device{factors.to(parameter.device()), {}};
    if (!clip.omitted.empty()) on_device.omitted = at::tensor(clip.omitted, at::kLong).to(parameter.device());
    at::Tensor sum = follow_path(gradient.use, gradient.contribution->weighted_sum(on_device));
    gradient.contribution.reset();
    sum = sum.reshape(parameter.sizes()).to(at::kFloat).contiguous();
    sums[p] = sums[p].defined() ? sums[p].add_(sum) : sum;
  }
  if (groups_.size() == 1) pass_.count(clip);
}

void ClippedSums::accumulate() {
  settle_composites();
  std::vector<ParameterGradients> by_group(groups_.size());
  for (ParameterGradient& gradient : gradients_) by_group[group_of(gradient.use.parameter)].push_back(std::move(gradient));
  gradients_.clear();
  if (sums_.empty()) sums_.resize(parameters_.size());
  for (std::size_t group = 0; group < groups_.size(); ++group) {
    if (!of_group_[group].finished) finish_group(group, by_group[group], sums_);
  }
  for (std::size_t p = 0; p < early_.size(); ++p) {
    if (early_[p].defined()) sums_[p] = sums_[p].defined() ? sums_[p].add_(early_[p]) : early_[p];
    early_[p].reset();
  }
  accumulated_ += 1;
  discard(false);
}

void ClippedSums::discard(bool all) {
  gradients_.clear();
  composites_.clear();
  drop_arrived();
  early_.clear();
  of_parameter_.clear();
  of_group_.clear();
  if (!all) return;
  sums_.clear();
  accumulated_ = 0;
  pass_ = new_pass(options_);
}

ClippedSum ClippedSums::finish() {
  if (accumulated_ == 0) {
    throw InvalidState("[step] Expected at least one physical batch in the logical batch, received none. Run forward and "
                       "backward before step().");
  }
  std::vector<SumPart> parts;
  sums_.resize(parameters_.size());
  for (std::size_t p = 0; p < parameters_.size(); ++p) {
    if (!sums_[p].defined()) sums_[p] = at::zeros(parameters_.parameter(p).sizes(), parameters_.parameter(p).options().dtype(at::kFloat).requires_grad(false));
    if (!sums_[p].is_cpu()) sums_[p] = sums_[p].cpu();
    parts.emplace_back(sums_[p].data_ptr<float>(), static_cast<std::size_t>(sums_[p].numel()));
  }
  accumulated_ = 0;
  counted_ = std::exchange(pass_, new_pass(options_));
  return counted_->finish(std::move(parts));
}

ClippedSum ClippedSums::finish_count(float& storage) {
  if (counted_ && groups_.size() == 1) return counted_->finish_count(storage);
  throw InvalidState("[step] Expected finish() before finish_count(), with one bound for all parameters.");
}

void ClippedSums::renew_pass() { pass_ = new_pass(options_); }

}  // namespace hushgrad
