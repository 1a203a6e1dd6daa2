#include "dpcore/clipping/clipping_pass.h"

#include <cmath>

#include "dpcore/error.h"

namespace hushgrad {

ClippingPass::ClippingPass(double max_grad_norm) : max_grad_norm_(max_grad_norm) {
  if (std::isfinite(max_grad_norm) && max_grad_norm > 0) return;
  throw InvalidArgument(message("[clipping] Expected a finite max_grad_norm > 0, received ", max_grad_norm,
                                ". Pass the l2 norm to which each sample's gradient is clipped."));
}

ClippingPass::Factors ClippingPass::factors(std::span<const double> squared_norms) const {
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
    result.factors.push_back(norm > max_grad_norm_ ? max_grad_norm_ / norm : 1.0);
  }
  return result;
}

ClippedSum ClippingPass::finish(std::vector<SumPart> parts) {
  if (finished_) {
    throw PrivacyViolation("[clipping] Expected one finish() a pass, received a second. A sum is released once.");
  }
  finished_ = true;
  return ClippedSum(std::move(parts), max_grad_norm_, Adjacency::add_or_remove_one);
}

}  // namespace hushgrad
