#include "dpcore/clipping/clipping_pass.h"

#include <cmath>

#include "dpcore/error.h"

namespace hushgrad {
namespace {

// Of AUTO-S: keeps the direction of small gradients and lets their size vanish with them.
constexpr double kStability = 0.01;

}  // namespace

ClippingPass::ClippingPass(double max_grad_norm, ClippingFunction function)
    : ClippingPass(std::vector<double>{max_grad_norm}, function) {}

ClippingPass::ClippingPass(std::vector<double> max_grad_norms, ClippingFunction function)
    : max_grad_norms_(std::move(max_grad_norms)), function_(function) {
  if (max_grad_norms_.empty()) throw InvalidArgument("[clipping] Expected a max_grad_norm for each group, received none.");
  for (double norm : max_grad_norms_) {
    if (std::isfinite(norm) && norm > 0) continue;
    throw InvalidArgument(message("[clipping] Expected a finite max_grad_norm > 0, received ", norm,
                                  ". Pass the l2 norm to which each sample's gradient is clipped."));
  }
}

double ClippingPass::l2_sensitivity() const {
  if (max_grad_norms_.size() == 1) return max_grad_norms_[0];
  double squares = 0;
  for (double norm : max_grad_norms_) squares += norm * norm;
  // Upwards: the bound must not fall short of the true root by the rounding of its terms.
  return std::sqrt(squares) * (1 + 1e-15 * static_cast<double>(max_grad_norms_.size()));
}

ClippingPass::Factors ClippingPass::factors(std::span<const double> squared_norms, std::size_t group) const {
  const double bound = max_grad_norms_.at(group);
  Factors result;
  result.factors.reserve(squared_norms.size());
  for (std::size_t b = 0; b < squared_norms.size(); ++b) {
    const double n2 = squared_norms[b];
    if (!std::isfinite(n2) || n2 < 0) {
      result.factors.push_back(0.0);
      result.omitted.push_back(static_cast<std::int64_t>(b));
      continue;
    }
    const double norm = std::sqrt(n2);
    result.unclipped += norm <= bound;
    const double clipped = norm > bound ? bound / norm : 1.0;
    result.factors.push_back(function_ == ClippingFunction::clip ? clipped : bound / (norm + kStability));
  }
  return result;
}

void ClippingPass::count(const Factors& factors) {
  const auto batch = static_cast<double>(factors.factors.size());
  count_ += static_cast<double>(factors.unclipped) - batch / 2;
}

ClippedSum ClippingPass::finish(std::vector<SumPart> parts) {
  if (finished_) {
    throw PrivacyViolation("[clipping] Expected one finish() a pass, received a second. A sum is released once.");
  }
  finished_ = true;
  return ClippedSum(std::move(parts), l2_sensitivity(), Adjacency::add_or_remove_one);
}

ClippedSum ClippingPass::finish_count(float& storage) {
  if (count_finished_) {
    throw PrivacyViolation("[clipping] Expected one finish_count() a pass, received a second. A count is released once.");
  }
  count_finished_ = true;
  storage = static_cast<float>(count_);
  return ClippedSum({SumPart(&storage, 1)}, 0.5, Adjacency::add_or_remove_one);
}

}  // namespace hushgrad
