// Linear layers of any rank: y = a W^T + c. Per-sample gradient of sample b: g_b^T a_b, [p, d].
#include <torch/csrc/autograd/generated/Functions.h>

#include <utility>

#include "torch_ext/rules/gram.h"
#include "torch_ext/rules/linear.h"
#include "torch_ext/rules/rule.h"

namespace hushgrad {
namespace {

using namespace torch::autograd::generated;

/// activations: [R, d], backprops: [R, p], R = B*T rows in the order `rows` says.
class LinearContribution final : public Contribution {
 public:
  /// boundary_is_in_out: the boundary is W^T, [d, p], as in addmm; else W, [p, d].
  LinearContribution(at::Tensor activations, at::Tensor backprops, RowMap rows, std::int64_t batch, bool boundary_is_in_out)
      : activations_(std::move(activations)),
        backprops_(std::move(backprops)),
        rows_(rows),
        batch_(batch),
        boundary_is_in_out_(boundary_is_in_out) {}

  at::Tensor squared_norms() override {
    if (!kept_.defined() && instantiating_is_cheaper()) keep();
    if (kept_.defined()) return Instantiated(kept_).squared_norms();
    return gram_squared_norms(activations_, backprops_, rows_, batch_);
  }

  at::Tensor weighted_sum(const SampleFactors& factors) override {
    if (kept_.defined()) return oriented(Instantiated(kept_).weighted_sum(factors));
    at::Tensor a = at_least_float(std::exchange(activations_, {})), g = at_least_float(std::exchange(backprops_, {}));
    at::Tensor row_factors = factors.factors.to(a.scalar_type());
    const std::int64_t time = a.size(0) / batch_;
    row_factors = (rows_.major ? row_factors.repeat_interleave(time) : row_factors.repeat({time})).unsqueeze(1);
    // Scale the narrower of the two, or one that needs no copy for it; the product is the same.
    const bool in_place = is_only_ours(g) && g.size(1) <= 2 * a.size(1);
    if (a.size(1) < g.size(1) && !in_place) {
      a = scaled(std::move(a), row_factors);
    } else {
      g = scaled(std::move(g), row_factors);
    }
    if (factors.omitted.defined()) {
      a = zero_rows(a, factors.omitted);
      g = zero_rows(g, factors.omitted);
    }
    return oriented(g.t().mm(a));
  }

  at::Tensor per_sample() override {
    if (!kept_.defined()) keep();
    return oriented(kept_);
  }

  std::optional<LinearParts> parts() const {
    if (kept_.defined()) return std::nullopt;
    return LinearParts{by_sample(activations_, rows_, batch_), by_sample(backprops_, rows_, batch_), boundary_is_in_out_};
  }

  std::unique_ptr<Contribution> merge(std::vector<std::unique_ptr<Contribution>>& alike) override {
    std::vector<at::Tensor> as, gs;
    for (auto& other : alike) {
      auto* linear = dynamic_cast<LinearContribution*>(other.get());
      if (!linear || linear->boundary_is_in_out_ != boundary_is_in_out_ || linear->kept_.defined()) return nullptr;
      as.push_back(by_sample(linear->activations_, linear->rows_, batch_));
      gs.push_back(by_sample(linear->backprops_, linear->rows_, batch_));
    }
    // [B, sum of T, d]: one use over a longer time.
    const at::Tensor a = at::cat(as, 1), g = at::cat(gs, 1);
    return std::make_unique<LinearContribution>(a.reshape({-1, a.size(2)}), g.reshape({-1, g.size(2)}), RowMap{0, true},
                                                batch_, boundary_is_in_out_);
  }

 private:
  // Instantiating costs B*T*p*d and is kept for the sum; the Gram matrices cost B*T*T*(p+d)/2. Where the first is smaller
  // the kept gradients are also smaller than the activations and backprops that they replace.
  bool instantiating_is_cheaper() const {
    const std::int64_t d = activations_.size(1), p = backprops_.size(1), time = activations_.size(0) / batch_;
    return time > 1 && 2 * p * d <= time * (p + d);
  }

  void keep() {
    const at::Tensor a = by_sample(at_least_float(activations_), rows_, batch_);
    const at::Tensor g = by_sample(at_least_float(backprops_), rows_, batch_);
    kept_ = g.transpose(1, 2).bmm(a);  // [B, p, d]
    activations_.reset();
    backprops_.reset();
  }

  at::Tensor oriented(const at::Tensor& out_in) const {
    return boundary_is_in_out_ ? out_in.transpose(-1, -2) : out_in;
  }

  at::Tensor zero_rows(const at::Tensor& t, const at::Tensor& omitted) const {
    at::Tensor copy = t.clone();
    by_sample(copy, rows_, batch_).index_fill_(0, omitted, 0);
    return copy;
  }

  at::Tensor activations_, backprops_, kept_;
  RowMap rows_;
  std::int64_t batch_;
  bool boundary_is_in_out_;
};

bool rows_follow(const SiteView& view, std::int64_t dim) {
  return view.batch == 1 || view.maps[0].dim == dim;
}

RowMap flat_rows(const SiteView& view) {
  return view.batch == 1 ? RowMap{0, true} : RowMap{0, view.maps[0].major};
}

std::unique_ptr<Contribution> right_operand(const SiteView& view, const at::Tensor& left) {
  return std::make_unique<LinearContribution>(left.detach(), view.backprops[0].detach(), flat_rows(view), view.batch, true);
}

bool addmm(const SiteView& view, AddmmBackward0& node, Contributions& out) {
  if (!view.flows()) return true;
  if (!node.alpha.equal(1) || !node.beta.equal(1) || !rows_follow(view, 0)) return false;
  for (std::size_t i = 0; i < view.site.uses.size(); ++i) {
    const Use& use = view.site.uses[i];
    if (use.edge == 0) out[i] = reduce_broadcast(view.backprops[0].detach(), {0, flat_rows(view).major}, view.batch, edge_sizes(use.boundary));
    if (use.edge == 2) out[i] = right_operand(view, unpack_once(node.mat1_));
    if (!out[i]) return false;
  }
  return true;
}

bool mm(const SiteView& view, MmBackward0& node, Contributions& out) {
  if (!view.flows()) return true;
  if (view.site.uses.size() != 1) return false;
  if (view.site.uses[0].edge == 1) {
    if (!rows_follow(view, 0)) return false;
    out[0] = right_operand(view, unpack_once(node.self_));
    return true;
  }
  // The parameter is the left operand: the samples are columns.
  if (!rows_follow(view, 1)) return false;
  out[0] = std::make_unique<LinearContribution>(unpack_once(node.mat2_).detach().t(), view.backprops[0].detach().t(), flat_rows(view), view.batch, false);
  return true;
}

/// Each sample's rows one after the other, as many for each. [B*m, ...]
at::Tensor in_order(const at::Tensor& rows, const RowMap& map, std::int64_t batch) { return by_sample(rows.detach(), map, batch).flatten(0, 1); }

bool ragged_addmm(const SiteView& view, AddmmBackward0& node, Contributions& out) {
  if (!node.alpha.equal(1) || !node.beta.equal(1)) return false;
  for (std::size_t i = 0; i < view.site.uses.size(); ++i) {
    const Use& use = view.site.uses[i];
    if (use.edge == 0) out[i] = reduce_broadcast(view.backprops[0].detach(), view.maps[0], view.batch, edge_sizes(use.boundary));
    if (use.edge == 2) {
      out[i] = linear_contribution(in_order(unpack_once(node.mat1_), view.maps[0], view.batch), in_order(view.backprops[0], view.maps[0], view.batch),
                                   RowMap{0, true}, view.batch, true);
    }
    if (!out[i]) return false;
  }
  return true;
}

bool ragged_mm(const SiteView& view, MmBackward0& node, Contributions& out) {
  if (view.site.uses.size() != 1 || view.site.uses[0].edge != 1) return false;
  out[0] = linear_contribution(in_order(unpack_once(node.self_), view.maps[0], view.batch), in_order(view.backprops[0], view.maps[0], view.batch),
                               RowMap{0, true}, view.batch, true);
  return true;
}

}  // namespace

bool ragged_linear_rule(const SiteView& view, Contributions& out) {
  if (!view.maps[0].ragged || view.maps[0].dim != 0 || !view.flows() || view.backprops[0].is_complex()) return false;
  if (auto* node = dynamic_cast<AddmmBackward0*>(&view.node())) return ragged_addmm(view, *node, out);
  if (auto* node = dynamic_cast<MmBackward0*>(&view.node())) return ragged_mm(view, *node, out);
  return false;
}

std::unique_ptr<Contribution> linear_contribution(at::Tensor activations, at::Tensor backprops, RowMap rows, std::int64_t batch,
                                                  bool boundary_is_in_out) {
  return std::make_unique<LinearContribution>(std::move(activations), std::move(backprops), rows, batch, boundary_is_in_out);
}

std::optional<LinearParts> linear_parts(const Contribution& contribution) {
  const auto* linear = dynamic_cast<const LinearContribution*>(&contribution);
  return linear ? linear->parts() : std::nullopt;
}

bool linear_rule(const SiteView& view, Contributions& out) {
  if (auto* node = dynamic_cast<AddmmBackward0*>(&view.node())) return addmm(view, *node, out);
  if (auto* node = dynamic_cast<MmBackward0*>(&view.node())) return mm(view, *node, out);
  return false;
}

}  // namespace hushgrad
