#include "dpcore/clipping/adaptive_clipping.h"

#include <algorithm>
#include <cmath>

#include "dpcore/error.h"

namespace hushgrad {
namespace {

void require(bool holds, const char* name, const char* expected, double received) {
  if (holds) return;
  throw InvalidArgument(message("[adaptive clipping] Expected ", name, " ", expected, ", received ", received, "."));
}

bool positive(double value) { return std::isfinite(value) && value > 0; }

}  // namespace

void AdaptiveClippingOptions::check() const {
  require(target_unclipped_quantile > 0 && target_unclipped_quantile < 1, "target_unclipped_quantile", "in (0, 1)", target_unclipped_quantile);
  require(positive(clipbound_learning_rate), "clipbound_learning_rate", "> 0 and finite", clipbound_learning_rate);
  require(positive(min_clipbound), "min_clipbound", "> 0 and finite", min_clipbound);
  require(positive(max_clipbound) && max_clipbound >= min_clipbound, "max_clipbound", ">= min_clipbound and finite", max_clipbound);
  require(positive(unclipped_num_std), "unclipped_num_std", "> 0 and finite", unclipped_num_std);
}

AdaptiveClipping::AdaptiveClipping(AdaptiveClippingOptions options, double first_max_grad_norm)
    : options_((options.check(), options)), max_grad_norm_(first_max_grad_norm) {
  require(first_max_grad_norm >= options.min_clipbound && first_max_grad_norm <= options.max_clipbound, "max_grad_norm",
          "within [min_clipbound, max_clipbound]", first_max_grad_norm);
}

double AdaptiveClipping::gradient_noise_multiplier(double noise_multiplier) const {
  if (noise_multiplier == 0) return 0;
  require(noise_multiplier < count_noise_multiplier(), "noise_multiplier", "< 2 * unclipped_num_std (raise unclipped_num_std)", noise_multiplier);
  const double ratio = noise_multiplier / count_noise_multiplier();
  return noise_multiplier / std::sqrt((1 - ratio) * (1 + ratio)) * (1 + 1e-14);
}

void AdaptiveClipping::update(const NoisySum& count, double expected_batch_size) {
  const double share = 0.5 + static_cast<double>(count.parts()[0][0]) / expected_batch_size;
  const double next = max_grad_norm_ * std::exp(-options_.clipbound_learning_rate * (share - options_.target_unclipped_quantile));
  max_grad_norm_ = std::clamp(next, options_.min_clipbound, options_.max_clipbound);
}

}  // namespace hushgrad
