#include "torch_ext/capture/capture.h"

#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/graph_task.h>
#include <torch/csrc/autograd/variable.h>

#include <mutex>

#include "dpcore/error.h"
#include "torch_ext/capture/clipped_sums.h"
#include "torch_ext/capture/instead.h"
#include "torch_ext/capture/later_hooks.h"
#include "torch_ext/capture/loss_check.h"
#include "torch_ext/capture/prober.h"
#include "torch_ext/capture/row_proofs.h"
#include "torch_ext/rules/rule.h"

namespace hushgrad {

class GraphCapture::Impl : public std::enable_shared_from_this<GraphCapture::Impl> {
 public:
  Impl(std::vector<at::Tensor> parameters, std::vector<std::string> names, std::vector<at::Tensor> ignored, CaptureOptions options)
      : parameters_(std::move(parameters), std::move(names), std::move(ignored)), options_(std::move(options)), proofs_(parameters_, options_),
        gradients_(parameters_, options_) {
    loss_check_.set_unchecked(options_.unchecked_loss);
  }

  void guard_parameters();
  void release_parameters();
  void begin_batch(std::int64_t size);
  bool watch(const std::vector<at::Tensor>& outputs);
  void check_loss(const std::vector<at::Tensor>& losses, const std::vector<at::Tensor>& gradients);
  const RowProofs& proofs() const { return proofs_; }
  void check_derivatives(const std::vector<at::Tensor>& outputs, bool of_part) {
    proofs_.check_derivatives(differentiable(outputs).roots, of_part);
  }
  bool has_gradients() const { return gradients_.has_gradients() || completed_; }
  void accumulate();
  void discard(bool all);
  ClippedSums& gradients() { return gradients_; }
  const CaptureOptions& options() const { return options_; }
  void set_max_grad_norm(double max_grad_norm);

  /// Returns the gradients that stand in for the node's own, or nothing if the node is to run.
  variable_list on_backward(const Site& site, const std::vector<RowMap>& maps, std::uint64_t batch_number, const variable_list& backprops);

 private:
  struct Differentiable {
    std::vector<at::Tensor> outputs;
    std::vector<Edge> roots;
  };

  Differentiable differentiable(const std::vector<at::Tensor>& outputs) const;
  void attach(const Site& site, std::vector<RowMap> maps);
  void cut(const Site& site);
  void follow_task(int task);

  ParameterIndex parameters_;
  CaptureOptions options_;
  RowProofs proofs_;
  ClippedSums gradients_;
  LossCheck loss_check_;

  std::unordered_set<const torch::autograd::FunctionPreHook*> guards_;  // on the parameters' accumulators
  std::int64_t batch_ = -1;                   // -1: no batch has begun
  std::uint64_t batch_number_ = 0;            // of physical batches so far
  AttachedSites attached_;                    // of this batch
  std::vector<WatchedOutput> outputs_;        // of this batch
  LaterHooks hooks_;                          // on this batch's graphs
  std::mutex mutex_;                          // device threads of the engine
  int task_ = -1;                             // graph task whose gradients are arriving
  bool completed_ = false;                    // a backward pass of this batch ran to its end
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
  proofs_.begin_batch(size);
  gradients_.begin_batch(size);
  batch_ = size;
  ++batch_number_;
}

GraphCapture::Impl::Differentiable GraphCapture::Impl::differentiable(const std::vector<at::Tensor>& outputs) const {
  Differentiable found;
  for (const at::Tensor& output : outputs) {
    if (!output.defined() || !output.requires_grad()) continue;
    Edge edge = torch::autograd::impl::gradient_edge(output);
    if (!edge.function || parameters_.find(edge.function.get()) >= 0) continue;
    found.outputs.push_back(output);
    found.roots.push_back(std::move(edge));
  }
  return found;
}

bool GraphCapture::Impl::watch(const std::vector<at::Tensor>& outputs) {
  if (batch_ < 0) throw InvalidState("[watch] Expected begin_batch() before watch(). Say how many samples the batch holds.");
  const Differentiable watched = differentiable(outputs);
  if (watched.roots.empty()) return false;
  Walk plain = walk_graph(watched.roots, parameters_, {});
  if (plain.sites.empty()) return false;
  if (batch_ == 0) {
    for (const Site& site : plain.sites) cut(site);
    return false;
  }
  const std::vector<ProbedOutput> batched = batched_outputs(watched.outputs, batch_, options_.batch_first);
  RowProofs::Prepared prepared = proofs_.prepare(watched.roots, std::move(plain), batched, attached_);
  for (const ProbedOutput& output : batched) outputs_.push_back({torch::autograd::impl::gradient_edge(output.tensor), output.map});
  for (std::size_t i = 0; i < prepared.walk.sites.size(); ++i) attach(prepared.walk.sites[i], std::move(prepared.maps[i]));
  hooks_.note(prepared.walk, watched.roots);
  return prepared.is_new;
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
  gradients_.expect(private_site);
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
  follow_task(torch::autograd::get_current_graph_task_id());
  variable_list instead;
  Contributions contributions = apply_rules({site, backprops, maps, batch_, parameters_, instead});
  gradients_.arrive(site, std::move(contributions));
  return instead;
}

/// What arrives counts once its backward pass has run to the end.
void GraphCapture::Impl::follow_task(int task) {
  if (task == task_) return;
  task_ = task;
  gradients_.drop_arrived();  // of a backward pass that failed half-way
  torch::autograd::Engine::get_default_engine().queue_callback([weak = weak_from_this()] {
    auto self = weak.lock();
    if (!self) return;
    std::lock_guard<std::mutex> inner(self->mutex_);
    self->gradients_.keep_arrived();
    self->completed_ = true;
    self->task_ = -1;
  });
}

void GraphCapture::Impl::check_loss(const std::vector<at::Tensor>& losses, const std::vector<at::Tensor>& gradients) {
  if (batch_ < 1 || outputs_.empty()) return;
  const bool ours = loss_check_.check(losses, gradients, outputs_, batch_, [this](const Node* node) { return attached_.contains(node); });
  if (ours) hooks_.refuse_later();
}

void GraphCapture::Impl::accumulate() {
  if (batch_ < 0) throw InvalidState("[step] Expected a batch, received none. Run forward and backward before step().");
  if (batch_ > 0 && !completed_) {
    throw InvalidState("[step] Expected a backward pass through the private model since the batch began, received none. Call "
                       "model(batch) and loss.backward() before optimizer.step(), in training mode and without torch.no_grad().");
  }
  at::NoGradGuard no_grad;
  gradients_.accumulate();
  discard(false);
}

void GraphCapture::Impl::discard(bool all) {
  gradients_.discard(all);
  attached_.clear();
  hooks_.clear();
  outputs_.clear();
  completed_ = false;
  task_ = -1;
  batch_ = -1;
}

void GraphCapture::Impl::set_max_grad_norm(double max_grad_norm) {
  if (completed_ || !gradients_.may_change_bound()) {
    throw InvalidState("[clipping] Expected max_grad_norm to change between two steps and under one bound for all parameters, received a "
                       "change in the middle of a logical batch or under per-layer clipping. Change it after step().");
  }
  options_.max_grad_norm = max_grad_norm;
  gradients_.renew_pass();
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
ClippedSum GraphCapture::finish() { return impl_->gradients().finish(); }
std::vector<at::Tensor> GraphCapture::take_sums() { return impl_->gradients().take_sums(); }
ClippedSum GraphCapture::finish_count(float& storage) { return impl_->gradients().finish_count(storage); }
const std::string& GraphCapture::suspicion() const { return impl_->proofs().suspicion(); }
bool GraphCapture::needs_derivatives() const { return impl_->proofs().needs_derivatives(); }
void GraphCapture::check_derivatives(const std::vector<at::Tensor>& outputs, bool of_part) { impl_->check_derivatives(outputs, of_part); }
void GraphCapture::check_loss(const std::vector<at::Tensor>& losses, const std::vector<at::Tensor>& gradients) { impl_->check_loss(losses, gradients); }
void GraphCapture::set_max_grad_norm(double max_grad_norm) { impl_->set_max_grad_norm(max_grad_norm); }
double GraphCapture::max_grad_norm() const { return impl_->options().max_grad_norm; }

}  // namespace hushgrad
