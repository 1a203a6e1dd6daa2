// Batched products and matrix-vector products with a free parameter: bmm (einsum, experts kept in one tensor) and mv. One product
// with a matrix for each slice; slices are independent coordinates of the same gradient.
#include <torch/csrc/autograd/generated/Functions.h>

#include "torch_ext/rules/linear.h"
#include "torch_ext/rules/rule.h"

namespace hushgrad {
namespace {

using torch::autograd::generated::BmmBackward0;
using torch::autograd::generated::MvBackward0;

/// Contributions to the slices of one tensor, in a shape of the boundary's.
class Slices final : public Contribution {
 public:
  Slices(std::vector<std::unique_ptr<Contribution>> parts, std::vector<std::int64_t> boundary)
      : parts_(std::move(parts)), boundary_(std::move(boundary)) {}

  at::Tensor squared_norms() override {
    at::Tensor total = parts_[0]->squared_norms();
    for (std::size_t i = 1; i < parts_.size(); ++i) total = total + parts_[i]->squared_norms();
    return total;
  }

  at::Tensor weighted_sum(const SampleFactors& factors) override {
    std::vector<at::Tensor> sums;
    for (auto& part : parts_) sums.push_back(part->weighted_sum(factors));
    return at::stack(sums).reshape(boundary_);
  }

  at::Tensor per_sample() override {
    std::vector<at::Tensor> rows;
    for (auto& part : parts_) rows.push_back(part->per_sample());
    std::vector<std::int64_t> shape{rows[0].size(0)};
    shape.insert(shape.end(), boundary_.begin(), boundary_.end());
    return at::stack(rows, 1).reshape(shape);
  }

 private:
  std::vector<std::unique_ptr<Contribution>> parts_;
  std::vector<std::int64_t> boundary_;
};

// out[n] = self[n] mat2[n]. The samples are rows of self where mat2 is the parameter, columns of mat2 where self is.
bool bmm(const SiteView& view, BmmBackward0& node, Contributions& out) {
  if (!view.flows()) return true;
  if (view.site.uses.size() != 1) return false;
  const Use& use = view.site.uses[0];
  const bool right = use.edge == 1;
  if (view.batch > 1 && view.maps[0].dim != (right ? 1 : 2)) return false;
  const RowMap rows{0, view.batch == 1 || view.maps[0].major};
  const at::Tensor backprop = view.backprops[0].detach(), other = unpack_once(right ? node.self_ : node.mat2_).detach();
  std::vector<std::unique_ptr<Contribution>> parts;
  for (std::int64_t n = 0; n < backprop.size(0); ++n) {
    // [rows, k] and [rows, j]; for the left operand both are turned.
    parts.push_back(right ? linear_contribution(other[n], backprop[n], rows, view.batch, true)
                          : linear_contribution(other[n].t(), backprop[n].t(), rows, view.batch, false));
  }
  if (parts.empty()) return false;
  out[0] = std::make_unique<Slices>(std::move(parts), edge_sizes(use.boundary));
  return true;
}

// out = self vec, samples in the rows of self.
bool mv(const SiteView& view, MvBackward0& node, Contributions& out) {
  if (!view.flows()) return true;
  if (view.site.uses.size() != 1 || view.site.uses[0].edge != 1) return false;
  if (view.batch > 1 && view.maps[0].dim != 0) return false;
  const RowMap rows{0, view.batch == 1 || view.maps[0].major};
  std::vector<std::unique_ptr<Contribution>> parts;
  parts.push_back(linear_contribution(unpack_once(node.self_).detach(), view.backprops[0].detach().unsqueeze(1), rows, view.batch, false));
  out[0] = std::make_unique<Slices>(std::move(parts), edge_sizes(view.site.uses[0].boundary));
  return true;
}

}  // namespace

bool product_rule(const SiteView& view, Contributions& out) {
  if (auto* node = dynamic_cast<BmmBackward0*>(&view.node())) return bmm(view, *node, out);
  if (auto* node = dynamic_cast<MvBackward0*>(&view.node())) return mv(view, *node, out);
  return false;
}

}  // namespace hushgrad
