#include "torch_ext/capture/capture.h"

#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/graph_task.h>
#include <torch/csrc/autograd/variable.h>

#include <mutex>

#include "dpcore/error.h"
#include "torch_ext/capture/instead.h"
#include "torch_ext/capture/loss_check.h"
#include "torch_ext/capture/prober.h"
#include "torch_ext/capture/promotion.h"
#include "torch_ext/capture/ragged.h"
#include "torch_ext/capture/row_movers.h"
#include "torch_ext/rules/rule.h"
#include "torch_ext/rules/tied.h"

namespace hushgrad {
namespace {

/// What probing has shown of all graphs with one signature.
struct Structure {
  Promotions promotions;
  std::vector<std::vector<std::vector<RowMap>>> maps;  // [site][backprop] -> survivors
  bool proven = false;
  bool moving = false;  // rows may belong to other samples in the next batch
};

/// What is taken on condition for functions of parameters.
struct Condition {
  std::uint64_t signature = 0;
  Promotions promotions;
  std::optional<DerivativeRecord> derivatives;  // of the first pass that was shown
  std::string complaint;  // what is thrown if it does not hold
  bool only_shown_so;     // nothing but the comparison speaks for it
};

/// Per-sample gradients waiting at the boundary of a subgraph of parameters.
struct CompositeGradient {
  Edge boundary;
  std::unique_ptr<Contribution> contribution;
};

struct ParameterGradient {
  Use use;
  std::unique_ptr<Contribution> contribution;
};

bool preserves_every_value(const Use& use) {
  for (const PathStep& step : use.path) {
    const std::string name = step.node->name();
    if (name != "TBackward0" && name != "ViewBackward0" && name != "UnsafeViewBackward0" && name != "ToCopyBackward0") return false;
  }
  return true;
}

bool same_path(const Use& x, const Use& y) {
  if (x.path.size() != y.path.size() || edge_sizes(x.boundary) != edge_sizes(y.boundary)) return false;
  for (std::size_t i = 0; i < x.path.size(); ++i) {
    if (x.path[i].node->name() != y.path[i].node->name()) return false;
  }
  return preserves_every_value(x) && preserves_every_value(y);
}

/// A table tied to output layers, or null with the uses as they were.
std::unique_ptr<Contribution> tied_table(std::vector<ParameterGradient>& uses) {
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

ClippingPass new_pass(const CaptureOptions& options) {
  if (options.group_norms.empty()) return ClippingPass(options.max_grad_norm, options.clipping_function);
  return ClippingPass(options.group_norms, options.clipping_function);
}

std::string mixing_message(const std::string& mixer, const std::string& where) {
  return message("[watch] Expected each sample's output to depend on that sample only, received a graph in which ", mixer,
                 " mixes the samples of the batch before ", where,
                 ". Replace batch statistics (BatchNorm, centring, softmax, sorting or rolling over the batch) by per-sample "
                 "ones, for example BatchNorm by GroupNorm.");
}

}  // namespace

// torch.compile turns forward and backward pass into one node each, which runs once and tells nothing of single samples.
void refuse_compiled(const Site& site, const ParameterIndex& parameters) {
  if (site.node->name() != "CompiledFunctionBackward") return;
  throw Unsupported(message("[watch] Expected the operators that use private parameters to be on record, received a part compiled by "
                            "torch.compile: ", describe(site, parameters), ". Call torch.compile(model) before make_private, which then compiles "
                            "what lies between the parameters, or compile only parts without trainable parameters (preprocessing, a frozen "
                            "backbone, the loss) yourself."));
}

class GraphCapture::Impl : public std::enable_shared_from_this<GraphCapture::Impl> {
 public:
  Impl(std::vector<at::Tensor> parameters, std::vector<std::string> names, std::vector<at::Tensor> ignored, CaptureOptions options)
      : parameters_(std::move(parameters), std::move(names), std::move(ignored)), options_(std::move(options)), pass_(new_pass(options_)) {
    make_groups();
    loss_check_.set_unchecked(options_.unchecked_loss);
  }

  void guard_parameters();
  void release_parameters();
  void begin_batch(std::int64_t size);
  bool watch(const std::vector<at::Tensor>& outputs);
  void check_loss(const std::vector<at::Tensor>& losses, const std::vector<at::Tensor>& gradients);
  bool needs_derivatives() const { return !conditions_.empty(); }
  const std::string& suspicion() const { return suspicion_; }
  void check_derivatives(const std::vector<at::Tensor>& outputs);
  bool has_gradients() const { return !gradients_.empty() || !composites_.empty() || !early_.empty() || completed_; }
  void accumulate();
  void discard(bool all);
  ClippedSum finish();
  ClippedSum finish_count(float& storage);
  std::vector<at::Tensor> take_sums() { return std::move(sums_); }
  const CaptureOptions& options() const { return options_; }
  void set_max_grad_norm(double max_grad_norm);

  /// Returns the gradients that stand in for the node's own, or nothing if the node is to run.
  variable_list on_backward(const Site& site, const std::vector<RowMap>& maps, std::uint64_t batch_number, const variable_list& backprops);

 private:
  struct Prepared {
    Walk walk;
    std::vector<std::vector<RowMap>> maps;  // [site][backprop], resolved
  };

  Prepared prove(const std::vector<Edge>& roots, const std::vector<ProbedOutput>& outputs, Structure& structure);
  Prepared prove_sites(const std::vector<Edge>& roots, const std::vector<ProbedOutput>& outputs, const Promotions& promotions, Structure& structure,
                       Promotions& promoted, std::vector<std::size_t>& refuted, bool& decided) const;
  bool give_owners(const std::vector<ProbedOutput>& outputs, Prepared& prepared, Structure& structure, std::vector<std::size_t>& refuted) const;
  bool resolve_known(const Walk& walk, const Structure& structure, Prepared& prepared) const;
  bool identify_rows(const std::vector<ProbedOutput>& outputs, const Structure& structure, Prepared& prepared) const;
  void check_earlier_sites(const Walk& walk, const std::vector<ProbedOutput>& outputs);
  void attach(const Site& site, std::vector<RowMap> maps);
  void note_hooks(const Walk& walk, const std::vector<Edge>& roots);
  void refuse_later_hooks() const;
  void cut(const Site& site);
  void make_groups();
  void expect_uses(const Site& site);
  void settle_composites();
  void finish_group_if_complete(std::size_t group);
  void finish_group(std::size_t group, std::vector<ParameterGradient>& gradients, std::vector<at::Tensor>& sums);
  std::unique_ptr<Contribution> combined(std::vector<ParameterGradient>& uses);
  at::Tensor per_sample_of(ParameterGradient& gradient);

  ParameterIndex parameters_;
  CaptureOptions options_;
  ClippingPass pass_;
  std::vector<std::vector<std::size_t>> groups_;  // [group] -> its parameters
  std::vector<std::size_t> group_of_;             // [parameter]
  std::unordered_map<std::uint64_t, Structure> structures_;
  LossCheck loss_check_;
  std::vector<Condition> conditions_;  // of this batch's new structures
  std::string suspicion_;

  std::unordered_set<const torch::autograd::FunctionPreHook*> guards_;  // on the parameters' accumulators
  std::int64_t batch_ = -1;                   // -1: no batch has begun
  std::uint64_t batch_number_ = 0;            // of physical batches so far
  bool watched_ = false;
  std::unordered_map<const Node*, std::vector<RowMap>> attached_;  // sites of this batch
  std::vector<WatchedOutput> outputs_;        // of this batch
  struct HooksOf {
    const Node* node;
    bool is_output;
    std::size_t count;
  };
  static std::size_t counted_hooks(const Node& node, bool is_output);
  std::vector<HooksOf> hooks_;                // of this batch's nodes, which roots_ keep alive
  std::vector<Edge> roots_;
  std::mutex mutex_;                          // device threads of the engine
  int task_ = -1;                             // graph task whose gradients are arriving
  bool completed_ = false;                    // a backward pass of this batch ran to its end
  std::vector<ParameterGradient> gradients_, arriving_;
  std::vector<CompositeGradient> composites_, arriving_composites_;
  std::vector<at::Tensor> sums_;              // of the logical batch
  std::int64_t accumulated_ = 0;

  // Several groups only: what of a group is still to come in this physical batch.
  struct Pending {
    std::int64_t expected = 0, arrived = 0;
    bool late = false;      // reached through a subgraph of parameters: finished in accumulate()
    bool finished = false;
  };
  std::vector<Pending> pending_;   // [group]
  std::vector<at::Tensor> early_;  // [parameter] sums of groups that are finished
  std::optional<ClippingPass> counted_;  // the logical batch's pass after finish()
};

namespace {

/// Sits on a node that computes with private parameters.
struct SiteHook final : torch::autograd::FunctionPreHook {
  SiteHook(std::weak_ptr<GraphCapture::Impl> capture, Site site, std::vector<RowMap> maps, std::uint64_t batch_number)
      : capture(std::move(capture)), site(std::move(site)), maps(std::move(maps)), batch_number(batch_number) {
    node = this->site.node.get();
    this->site.node = NodePtr();  // the node owns this hook: holding it back would be a cycle
  }

  variable_list operator()(const variable_list& backprops) override {
    auto alive = capture.lock();
    if (!alive) return backprops;
    Site here = site;
    here.node = node->getptr();
    variable_list instead = alive->on_backward(here, maps, batch_number, backprops);
    if (instead.empty()) return backprops;
    node->add_post_hook(std::make_unique<InsteadOfNode>(std::move(instead)));
    return variable_list(backprops.size());
  }

  std::weak_ptr<GraphCapture::Impl> capture;
  Site site;
  std::vector<RowMap> maps;
  std::uint64_t batch_number;
  Node* node;
};

/// Sits on the accumulator of a private parameter: nothing may arrive there.
struct RefuseOrdinaryGradient final : torch::autograd::FunctionPreHook {
  explicit RefuseOrdinaryGradient(std::string name) : name(std::move(name)) {}
  variable_list operator()(const variable_list&) override {
    throw PrivacyViolation(message(
        "[backward] Expected every gradient of private parameter '", name,
        "' to pass per-sample clipping, received an ordinary one. The loss uses the parameter outside the watched forward pass: "
        "call the model itself (not a submodule or its weights), use checkpoint(..., use_reentrant=False), and put weight "
        "penalties into the optimizer (weight_decay)."));
  }
  std::string name;
};

}  // namespace

void GraphCapture::Impl::guard_parameters() {
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    auto hook = std::make_unique<RefuseOrdinaryGradient>(parameters_.name(i));
    guards_.insert(hook.get());
    parameters_.accumulator(i)->add_pre_hook(std::move(hook));
  }
}

void GraphCapture::Impl::release_parameters() {
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    auto& hooks = parameters_.accumulator(i)->pre_hooks();
    std::erase_if(hooks, [this](const auto& hook) { return guards_.contains(hook.get()); });
  }
}

void GraphCapture::Impl::begin_batch(std::int64_t size) {
  if (size < 0) throw InvalidArgument(message("[begin_batch] Expected a batch size >= 0, received ", size, "."));
  if (has_gradients()) {
    throw InvalidState("[begin_batch] Expected the last batch to be stepped or discarded, received a new batch. Call "
                       "optimizer.step() after each backward pass, or zero_grad() to drop a batch; to sum several physical "
                       "batches into one step use BatchMemoryManager.");
  }
  discard(false);
  conditions_.clear();
  suspicion_.clear();
  batch_ = size;
  ++batch_number_;
}

bool GraphCapture::Impl::watch(const std::vector<at::Tensor>& outputs) {
  if (batch_ < 0) throw InvalidState("[watch] Expected begin_batch() before watch(). Say how many samples the batch holds.");
  std::vector<at::Tensor> differentiable;
  std::vector<Edge> roots;
  for (const at::Tensor& output : outputs) {
    if (!output.defined() || !output.requires_grad()) continue;
    Edge edge = torch::autograd::impl::gradient_edge(output);
    if (!edge.function || parameters_.find(edge.function.get()) >= 0) continue;
    differentiable.push_back(output);
    roots.push_back(std::move(edge));
  }
  watched_ = true;
  if (roots.empty()) return false;
  Walk plain = walk_graph(roots, parameters_, {});
  if (plain.sites.empty()) return false;
  if (batch_ == 0) {
    for (const Site& site : plain.sites) cut(site);
    return false;
  }
  Structure& structure = structures_[plain.signature];
  Prepared prepared;
  const std::vector<ProbedOutput> batched = batched_outputs(differentiable, batch_, options_.batch_first);
  bool known = structure.proven;
  if (known) prepared.walk = structure.promotions.empty() ? plain : walk_graph(roots, parameters_, structure.promotions);
  if (known && (structure.moving || !rows_stay(prepared.walk, batch_, options_.batch_first))) {
    known = identify_rows(batched, structure, prepared);
  } else if (known) {
    known = resolve_known(prepared.walk, structure, prepared);
  }
  if (!known) prepared = prove(roots, batched, structure);
  for (const ProbedOutput& output : batched) outputs_.push_back({torch::autograd::impl::gradient_edge(output.tensor), output.map});
  for (std::size_t i = 0; i < prepared.walk.sites.size(); ++i) attach(prepared.walk.sites[i], std::move(prepared.maps[i]));
  note_hooks(prepared.walk, roots);
  return !known;
}

bool GraphCapture::Impl::resolve_known(const Walk& walk, const Structure& structure, Prepared& prepared) const {
  if (structure.maps.size() != walk.sites.size()) return false;
  prepared.maps.clear();
  for (std::size_t s = 0; s < walk.sites.size(); ++s) {
    const NodePtr& node = walk.sites[s].node;
    if (structure.maps[s].size() != node->num_inputs()) return false;
    auto& resolved = prepared.maps.emplace_back();
    for (std::uint32_t nr = 0; nr < node->num_inputs(); ++nr) {
      if (structure.maps[s][nr].empty()) {  // never reached by a backprop
        resolved.push_back({-1, true});
        continue;
      }
      const auto map = resolve(structure.maps[s][nr], edge_sizes(Edge(node, nr)), batch_);
      if (!map) return false;
      resolved.push_back(*map);
    }
  }
  return true;
}

GraphCapture::Impl::Prepared GraphCapture::Impl::prove(const std::vector<Edge>& roots, const std::vector<ProbedOutput>& outputs,
                                                       Structure& structure) {
  if (outputs.empty()) {
    throw Unsupported(message("[watch] Expected an output with the batch of ", batch_, " samples in dimension ",
                              options_.batch_first ? 0 : 1,
                              ", received none. Return per-sample outputs from the model (a loss summed over the batch inside "
                              "the model hides which sample is which), or set batch_first."));
  }
  Promotions promotions = structure.promotions;
  std::string complaint;
  while (true) {
    Promotions promoted;
    std::vector<std::size_t> refuted;
    bool decided = batch_ > 1;
    Prepared prepared = prove_sites(roots, outputs, promotions, structure, promoted, refuted, decided);
    const auto& sites = prepared.walk.sites;
    const std::size_t first = refuted.empty() ? 0 : refuted[0];
    // Rows in another order may be other samples' inputs (a roll over the batch): only the forward check tells.
    if (options_.forward_is_checked && promoted.empty() && !refuted.empty() && give_owners(outputs, prepared, structure, refuted)) {
      structure.moving = true;
      suspicion_ = mixing_message(name_the_mixer(outputs, batch_, prepared.walk), describe(sites[first], parameters_));
    }
    if (promoted.empty() && !refuted.empty()) {
      const std::string mixing = mixing_message(name_the_mixer(outputs, batch_, prepared.walk), describe(sites[refuted[0]], parameters_));
      for (std::size_t s : refuted) {
        if (options_.forward_is_checked && may_be_constant(sites[s])) promoted.insert(sites[s].position);
      }
      if (promoted.empty()) throw Unsupported(complaint.empty() ? mixing : complaint);
      if (complaint.empty()) complaint = mixing;
    }
    if (!promoted.empty()) {
      promotions.insert(promoted.begin(), promoted.end());
      continue;
    }
    check_earlier_sites(prepared.walk, outputs);
    if (options_.forward_is_checked && !promotions.empty()) {
      const bool only_shown_so = !complaint.empty();
      if (!only_shown_so) complaint = mixing_message("an operator on parameters that computes with data", "the parameters that it combines");
      conditions_.push_back({walk_graph(roots, parameters_, {}).signature, promotions, std::nullopt, complaint, only_shown_so});
    }
    structure.promotions = promotions;
    structure.proven = decided;
    structure.moving = structure.moving || !rows_stay(prepared.walk, batch_, options_.batch_first);
    return prepared;
  }
}

/// Probes every site and resolves its rows. promoted: positions found to be functions of parameters; refuted: sites whose rows
/// follow no regular order.
GraphCapture::Impl::Prepared GraphCapture::Impl::prove_sites(const std::vector<Edge>& roots, const std::vector<ProbedOutput>& outputs,
                                                             const Promotions& promotions, Structure& structure, Promotions& promoted,
                                                             std::vector<std::size_t>& refuted, bool& decided) const {
  Prepared prepared{walk_graph(roots, parameters_, promotions), {}};
  const auto& sites = prepared.walk.sites;
  for (const Site& site : sites) refuse_compiled(site, parameters_);
  ProbeTargets targets;
  std::vector<std::pair<std::size_t, std::uint32_t>> owner;
  std::vector<std::vector<RowEvidence>> evidence(sites.size());
  std::vector<std::vector<char>> reached(sites.size());
  for (std::size_t s = 0; s < sites.size(); ++s) {
    for (std::uint32_t nr = 0; nr < sites[s].node->num_inputs(); ++nr) {
      targets.push_back(Edge(sites[s].node, nr));
      owner.push_back({s, nr});
      evidence[s].emplace_back(candidate_maps(edge_sizes(targets.back()), batch_));
    }
    reached[s].resize(evidence[s].size());
  }
  if (batch_ > 1) {
    probe(outputs, batch_, prepared.walk, targets, [&](std::size_t t, const at::Tensor& backprop, const at::Tensor& seeded) {
      if (backprop.numel() == 0) return;
      const auto [s, nr] = owner[t];
      reached[s][nr] = true;
      evidence[s][nr].observe(backprop, seeded);
    });
  }
  const auto earlier = std::exchange(structure.maps, {});
  for (std::size_t s = 0; s < sites.size(); ++s) {
    auto& resolved = prepared.maps.emplace_back();
    auto& kept = structure.maps.emplace_back();
    for (std::uint32_t nr = 0; nr < evidence[s].size(); ++nr) {
      const RowEvidence& e = evidence[s][nr];
      if (batch_ > 1 && !reached[s][nr]) {
        const bool was_known = earlier.size() == sites.size() && nr < earlier[s].size();
        resolved.push_back({-1, true});
        kept.push_back(was_known ? earlier[s][nr] : std::vector<RowMap>{});
        continue;
      }
      if (e.refuted()) {
        if (may_be_promoted(sites[s], options_.forward_is_checked)) {
          promoted.insert(sites[s].position);
        } else {
          refuted.push_back(s);
        }
        break;
      }
      resolved.push_back(resolve(e.survivors(), edge_sizes(Edge(sites[s].node, nr)), batch_).value_or(e.survivors().front()));
      kept.push_back(e.survivors());
      decided = decided && e.decided();
    }
  }
  return prepared;
}

/// Finds out row by row who owns the rows of the refuted sites. Those for which that works leave `refuted`; true if any do.
bool GraphCapture::Impl::give_owners(const std::vector<ProbedOutput>& outputs, Prepared& prepared, Structure& structure,
                                     std::vector<std::size_t>& refuted) const {
  ProbeTargets targets;
  std::vector<OwnerEvidence> evidence;
  for (std::size_t s : refuted) {
    const NodePtr& node = prepared.walk.sites[s].node;
    for (std::uint32_t nr = 0; nr < node->num_inputs(); ++nr) {
      targets.push_back(Edge(node, nr));
      evidence.emplace_back(edge_sizes(targets.back()), batch_);
    }
  }
  probe(outputs, batch_, prepared.walk, targets, [&](std::size_t t, const at::Tensor& backprop, const at::Tensor& seeded) {
    int bit = 0;
    while (seeded[std::int64_t{1} << bit].item<bool>() == seeded[0].item<bool>()) ++bit;
    evidence[t].observe(backprop, bit, seeded[std::int64_t{1} << bit].item<bool>());
  });
  std::vector<std::size_t> still_refuted;
  std::size_t t = 0;
  for (std::size_t s : refuted) {
    std::vector<RowMap> maps;
    const std::uint32_t inputs = prepared.walk.sites[s].node->num_inputs();
    for (std::uint32_t nr = 0; nr < inputs; ++nr, ++t) {
      if (const auto owned = evidence[t].owned()) maps.push_back(ragged_map(owned->dim, owned->owners, batch_));
    }
    if (maps.size() != inputs) {
      still_refuted.push_back(s);
      continue;
    }
    prepared.maps[s] = maps;
    structure.maps[s].clear();
    for (const RowMap& map : maps) structure.maps[s].push_back({map});
  }
  const bool any = still_refuted.size() < refuted.size();
  refuted = std::move(still_refuted);
  return any;
}

/// As resolve_known, for structures whose rows move: along the dimensions that are known, every row is told apart again.
bool GraphCapture::Impl::identify_rows(const std::vector<ProbedOutput>& outputs, const Structure& structure, Prepared& prepared) const {
  const auto& sites = prepared.walk.sites;
  if (outputs.empty() || structure.maps.size() != sites.size()) return false;
  struct Target {
    std::size_t site;
    std::vector<RowMap> survivors;
    std::vector<at::Tensor> norms;
  };
  const OwnerCodes codes(batch_);
  ProbeTargets edges;
  std::vector<Target> targets;
  for (std::size_t s = 0; s < sites.size(); ++s) {
    if (structure.maps[s].size() != sites[s].node->num_inputs()) return false;
    for (std::uint32_t nr = 0; nr < sites[s].node->num_inputs(); ++nr) {
      edges.push_back(Edge(sites[s].node, nr));
      targets.push_back({s, structure.maps[s][nr], {}});
    }
  }
  std::vector<at::Tensor> factors;
  for (int i = 0; i < codes.probes(); ++i) factors.push_back(codes.factors(i));
  bool unseen = false;
  probe_scaled(outputs, batch_, prepared.walk, edges, factors, [&](std::size_t t, const at::Tensor& backprop, std::size_t) {
    if (backprop.numel() == 0) return;
    const auto& survivors = targets[t].survivors;
    unseen = unseen || survivors.empty() || survivors.front().dim >= backprop.dim() || survivors.front().dim < 0;
    if (!unseen) targets[t].norms.push_back(row_norms(backprop, survivors.front().dim));
  });
  if (unseen) return false;
  prepared.maps.assign(sites.size(), {});
  for (std::size_t t = 0; t < targets.size(); ++t) {
    Target& target = targets[t];
    if (target.norms.size() != factors.size()) {  // nothing flows there
      if (!target.norms.empty()) return false;
      prepared.maps[target.site].push_back({-1, true});
      continue;
    }
    const auto owners = codes.owners(target.norms);
    if (!owners) return false;
    const RowMap& usual = target.survivors.front();
    const auto sizes = edge_sizes(edges[t]);
    const bool as_usual = !usual.ragged && allows(sizes, usual, batch_) && owners->eq(owners_of(usual, sizes, batch_)).logical_or(owners->lt(0)).all().item<bool>();
    if (!as_usual && !options_.forward_is_checked) return false;
    prepared.maps[target.site].push_back(as_usual ? usual : ragged_map(usual.dim, *owners, batch_));
  }
  return true;
}

void GraphCapture::Impl::check_derivatives(const std::vector<at::Tensor>& outputs) {
  std::vector<Edge> roots;
  for (const at::Tensor& output : outputs) {
    if (!output.defined() || !output.requires_grad()) continue;
    Edge edge = torch::autograd::impl::gradient_edge(output);
    if (edge.function && parameters_.find(edge.function.get()) < 0) roots.push_back(std::move(edge));
  }
  const std::uint64_t signature = walk_graph(roots, parameters_, {}).signature;
  for (Condition& condition : conditions_) {
    if (signature != condition.signature) {  // says nothing of this one
      if (condition.only_shown_so) throw Unsupported(condition.complaint);
      continue;
    }
    DerivativeRecord record(walk_graph(roots, parameters_, condition.promotions), parameters_);
    if (condition.derivatives && condition.derivatives->differs_from(record, parameters_)) throw Unsupported(condition.complaint);
    condition.derivatives = std::move(record);
  }
}

// A graph may lead into one that an earlier forward pass of this batch built: what lies between them must not mix either.
void GraphCapture::Impl::check_earlier_sites(const Walk& walk, const std::vector<ProbedOutput>& outputs) {
  ProbeTargets targets;
  std::vector<RowEvidence> evidence;
  for (const NodePtr& node : walk.nodes) {
    const auto earlier = attached_.find(node.get());
    if (earlier == attached_.end()) continue;
    for (std::uint32_t nr = 0; nr < node->num_inputs(); ++nr) {
      targets.push_back(Edge(node, nr));
      evidence.emplace_back(std::vector<RowMap>{earlier->second[nr]});
    }
  }
  if (targets.empty() || batch_ < 2) return;
  probe(outputs, batch_, walk, targets, [&](std::size_t t, const at::Tensor& backprop, const at::Tensor& seeded) {
    evidence[t].observe(backprop, seeded);
  });
  for (std::size_t t = 0; t < targets.size(); ++t) {
    if (!evidence[t].refuted()) continue;
    throw Unsupported(mixing_message(name_the_mixer(outputs, batch_, walk), targets[t].function->name()));
  }
}

void GraphCapture::Impl::cut(const Site& site) {
  auto edges = site.node->next_edges();
  for (const Use& use : site.uses) edges[use.edge] = Edge();
  set_edges(*site.node, edges);
}

void GraphCapture::Impl::attach(const Site& site, std::vector<RowMap> maps) {
  cut(site);
  attached_.emplace(site.node.get(), maps);
  Site private_site{site.node, site.position, {}};
  for (const Use& use : site.uses) {
    if (!parameters_.ignored(use.parameter)) private_site.uses.push_back(use);
  }
  if (private_site.uses.empty()) return;
  expect_uses(private_site);
  site.node->add_pre_hook(std::make_unique<SiteHook>(weak_from_this(), std::move(private_site), std::move(maps), batch_number_));
}

variable_list GraphCapture::Impl::on_backward(const Site& site, const std::vector<RowMap>& maps, std::uint64_t batch_number,
                                              const variable_list& backprops) {
  if (is_probing()) return {};
  // torch.autograd.grad(...) for inputs runs through here too; it asks for no gradient of ours.
  const auto* exec_info = torch::autograd::get_current_graph_task_exec_info();
  if (exec_info && !exec_info->empty()) return {};
  if (at::GradMode::is_enabled()) {
    throw Unsupported("[backward] Expected create_graph=False, received create_graph=True. Second derivatives of private "
                      "parameters have no per-sample rule; drop the gradient penalty or take it on inputs only.");
  }
  std::lock_guard<std::mutex> lock(mutex_);
  if (batch_ < 0 || batch_number != batch_number_) {
    throw PrivacyViolation("[backward] Expected a backward pass through the current batch only, received one that leads into an "
                           "earlier batch, whose samples would count twice. Detach what is carried from batch to batch (hidden "
                           "states, running losses) and call backward() before step().");
  }
  const int task = torch::autograd::get_current_graph_task_id();
  if (task != task_) {
    task_ = task;
    arriving_.clear();  // of a backward pass that failed half-way
    arriving_composites_.clear();
    torch::autograd::Engine::get_default_engine().queue_callback([weak = weak_from_this()] {
      auto self = weak.lock();
      if (!self) return;
      std::lock_guard<std::mutex> inner(self->mutex_);
      std::move(self->arriving_.begin(), self->arriving_.end(), std::back_inserter(self->gradients_));
      std::move(self->arriving_composites_.begin(), self->arriving_composites_.end(), std::back_inserter(self->composites_));
      self->arriving_.clear();
      self->arriving_composites_.clear();
      self->completed_ = true;
      self->task_ = -1;
    });
  }
  variable_list instead;
  Contributions contributions = apply_rules({site, backprops, maps, batch_, parameters_, instead});
  for (std::size_t i = 0; i < site.uses.size(); ++i) {
    const Use& use = site.uses[i];
    if (contributions[i] && use.parameter >= 0) {
      arriving_.push_back({use, std::move(contributions[i])});
    } else if (contributions[i]) {
      arriving_composites_.push_back({use.boundary, std::move(contributions[i])});
    }
    if (groups_.size() == 1 || use.parameter < 0) continue;
    Pending& pending = pending_[group_of_[static_cast<std::size_t>(use.parameter)]];
    ++pending.arrived;
    if (!pending.finished) continue;
    throw Unsupported(message("[backward] Expected one backward pass a batch under per-layer clipping, received another one through '",
                              parameters_.name(static_cast<std::size_t>(use.parameter)), "', whose sum is finished. Add the losses up "
                              "and call backward() once, or use clipping=\"flat\"."));
  }
  for (const Use& use : site.uses) {
    if (groups_.size() > 1 && use.parameter >= 0) finish_group_if_complete(group_of_[static_cast<std::size_t>(use.parameter)]);
  }
  return instead;
}

void GraphCapture::Impl::make_groups() {
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
  pending_.resize(count);
}

void GraphCapture::Impl::expect_uses(const Site& site) {
  if (groups_.size() == 1) return;
  for (const Use& use : site.uses) {
    if (use.parameter >= 0) {
      ++pending_[group_of_[static_cast<std::size_t>(use.parameter)]].expected;
      continue;
    }
    for (const NodePtr& node : walk_graph({use.boundary}, parameters_, {}).nodes) {
      const auto p = parameters_.find(node.get());
      if (p >= 0 && !parameters_.ignored(p)) pending_[group_of_[static_cast<std::size_t>(p)]].late = true;
    }
  }
}

void GraphCapture::Impl::finish_group_if_complete(std::size_t group) {
  Pending& pending = pending_[group];
  if (pending.finished || pending.late || pending.arrived < pending.expected) return;
  const auto of_group = [&](const ParameterGradient& g) { return group_of_[static_cast<std::size_t>(g.use.parameter)] == group; };
  // What an earlier backward pass of this batch left of the group belongs to the same gradients.
  std::vector<ParameterGradient> gradients;
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

void GraphCapture::Impl::note_hooks(const Walk& walk, const std::vector<Edge>& roots) {
  roots_.insert(roots_.end(), roots.begin(), roots.end());
  // A tensor's hook on an output that nothing else of the model uses belongs to the loss, whose check sees it.
  std::unordered_set<const Node*> outputs;
  for (const Edge& root : roots) outputs.insert(root.function.get());
  if (roots.size() > 1) {
    for (const NodePtr& node : walk.nodes) {
      for (const Edge& edge : node->next_edges()) outputs.erase(edge.function.get());
    }
  }
  for (std::size_t i = 0; i < walk.nodes.size(); ++i) {
    if (walk.only_parameters[i]) continue;  // behind cut edges: roots_ do not keep them alive, and their gradients are ours
    const Node* node = walk.nodes[i].get();
    const bool is_output = outputs.contains(node);
    hooks_.push_back({node, is_output, counted_hooks(*node, is_output)});
  }
}

std::size_t GraphCapture::Impl::counted_hooks(const Node& node, bool is_output) {
  return is_output ? node.pre_hooks().size() : hooks_before(node);
}

// A hook may mix samples in the backward pass. Those of the forward pass were there when the model was checked.
void GraphCapture::Impl::refuse_later_hooks() const {
  for (const auto& [node, is_output, count] : hooks_) {
    if (counted_hooks(*node, is_output) <= count) continue;
    throw Unsupported(message("[backward] Expected hooks on the model's tensors to be registered in its forward pass, where they are checked, received "
                              "one at ", node->name(), " that came later. Call register_hook inside forward()."));
  }
}

void GraphCapture::Impl::check_loss(const std::vector<at::Tensor>& losses, const std::vector<at::Tensor>& gradients) {
  if (batch_ < 1 || outputs_.empty()) return;
  const bool ours = loss_check_.check(losses, gradients, outputs_, batch_, [this](const Node* node) { return attached_.contains(node); });
  if (ours) refuse_later_hooks();
}

void GraphCapture::Impl::settle_composites() {
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
    gradients_.push_back({use, std::make_unique<Instantiated>(at::stack(gradients[i]))});
  }
  composites_.clear();
}

at::Tensor GraphCapture::Impl::per_sample_of(ParameterGradient& gradient) {
  const at::Tensor boundary = gradient.contribution->per_sample();
  if (gradient.use.path.empty()) return boundary;
  std::vector<at::Tensor> rows;
  for (std::int64_t b = 0; b < batch_; ++b) rows.push_back(follow_path(gradient.use, boundary[b]));
  return at::stack(rows);
}

// Several uses of one parameter are one gradient: its norm is not the sum of their norms.
std::unique_ptr<Contribution> GraphCapture::Impl::combined(std::vector<ParameterGradient>& uses) {
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

/// Norms over the group, factors, and one weighted sum a parameter, added to `sums`.
void GraphCapture::Impl::finish_group(std::size_t group, std::vector<ParameterGradient>& gradients, std::vector<at::Tensor>& sums) {
  std::vector<std::vector<ParameterGradient>> by_parameter(parameters_.size());
  for (ParameterGradient& gradient : gradients) by_parameter[static_cast<std::size_t>(gradient.use.parameter)].push_back(std::move(gradient));
  gradients.clear();

  at::Tensor squared_norms = at::zeros({batch_}, at::kDouble);
  for (std::size_t p : groups_[group]) {
    auto& uses = by_parameter[p];
    if (uses.empty()) continue;
    if (uses.size() > 1) uses[0].contribution = combined(uses);
    squared_norms += uses[0].contribution->squared_norms().to(at::kCPU);
  }
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

void GraphCapture::Impl::accumulate() {
  if (batch_ < 0) throw InvalidState("[step] Expected a batch, received none. Run forward and backward before step().");
  if (batch_ > 0 && !completed_) {
    throw InvalidState("[step] Expected a backward pass through the private model since the batch began, received none. Call "
                       "model(batch) and loss.backward() before optimizer.step(), in training mode and without torch.no_grad().");
  }
  at::NoGradGuard no_grad;
  settle_composites();
  std::vector<std::vector<ParameterGradient>> by_group(groups_.size());
  for (ParameterGradient& gradient : gradients_) by_group[group_of_[static_cast<std::size_t>(gradient.use.parameter)]].push_back(std::move(gradient));
  gradients_.clear();
  if (sums_.empty()) sums_.resize(parameters_.size());
  for (std::size_t group = 0; group < groups_.size(); ++group) {
    if (!pending_[group].finished) finish_group(group, by_group[group], sums_);
  }
  for (std::size_t p = 0; p < early_.size(); ++p) {
    if (early_[p].defined()) sums_[p] = sums_[p].defined() ? sums_[p].add_(early_[p]) : early_[p];
    early_[p].reset();
  }
  accumulated_ += 1;
  discard(false);
}

void GraphCapture::Impl::discard(bool all) {
  gradients_.clear();
  composites_.clear();
  arriving_.clear();
  arriving_composites_.clear();
  attached_.clear();
  hooks_.clear();
  roots_.clear();
  outputs_.clear();
  early_.clear();
  std::fill(pending_.begin(), pending_.end(), Pending{});
  completed_ = false;
  watched_ = false;
  task_ = -1;
  batch_ = -1;
  if (!all) return;
  sums_.clear();
  accumulated_ = 0;
  pass_ = new_pass(options_);
}

ClippedSum GraphCapture::Impl::finish() {
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

ClippedSum GraphCapture::Impl::finish_count(float& storage) {
  if (counted_ && groups_.size() == 1) return counted_->finish_count(storage);
  throw InvalidState("[step] Expected finish() before finish_count(), with one bound for all parameters.");
}

void GraphCapture::Impl::set_max_grad_norm(double max_grad_norm) {
  if (accumulated_ > 0 || has_gradients() || groups_.size() > 1) {
    throw InvalidState("[clipping] Expected max_grad_norm to change between two steps and under one bound for all parameters, received a "
                       "change in the middle of a logical batch or under per-layer clipping. Change it after step().");
  }
  options_.max_grad_norm = max_grad_norm;
  pass_ = new_pass(options_);
}

GraphCapture::GraphCapture(std::vector<at::Tensor> parameters, std::vector<std::string> names, std::vector<at::Tensor> ignored,
                           CaptureOptions options)
    : impl_(std::make_shared<Impl>(std::move(parameters), std::move(names), std::move(ignored), options)) {
  impl_->guard_parameters();
}

GraphCapture::~GraphCapture() {
  if (impl_) impl_->release_parameters();
}

void GraphCapture::begin_batch(std::int64_t size) { impl_->begin_batch(size); }
bool GraphCapture::watch(const std::vector<at::Tensor>& outputs) { return impl_->watch(outputs); }
bool GraphCapture::has_gradients() const { return impl_->has_gradients(); }
void GraphCapture::accumulate() { impl_->accumulate(); }
void GraphCapture::discard(bool all) { impl_->discard(all); }
ClippedSum GraphCapture::finish() { return impl_->finish(); }
std::vector<at::Tensor> GraphCapture::take_sums() { return impl_->take_sums(); }
ClippedSum GraphCapture::finish_count(float& storage) { return impl_->finish_count(storage); }
const std::string& GraphCapture::suspicion() const { return impl_->suspicion(); }
bool GraphCapture::needs_derivatives() const { return impl_->needs_derivatives(); }
void GraphCapture::check_derivatives(const std::vector<at::Tensor>& outputs) { impl_->check_derivatives(outputs); }
void GraphCapture::check_loss(const std::vector<at::Tensor>& losses, const std::vector<at::Tensor>& gradients) { impl_->check_loss(losses, gradients); }
void GraphCapture::set_max_grad_norm(double max_grad_norm) { impl_->set_max_grad_norm(max_grad_norm); }
double GraphCapture::max_grad_norm() const { return impl_->options().max_grad_norm; }

}  // namespace hushgrad
