// Poisson batches with a largest size: for hardware that wants batches of bounded shape.
#pragma once

#include "dpcore/sampling/poisson.h"

namespace hushgrad {

/// A Poisson batch; if it holds more than max_batch_size records, a uniformly chosen max_batch_size of them (Chua et al.
/// 2024, "Scalable DP-SGD"). To be charged as truncated Poisson, never as Poisson: inclusions are not independent when a
/// batch is cut. 1 <= max_batch_size, else InvalidArgument.
class TruncatedPoissonSampler final : public Sampler {
 public:
  TruncatedPoissonSampler(std::int64_t population, SamplingRate rate, std::int64_t max_batch_size);

  /// Ascending, at most max_batch_size().
  Batch draw(Csprng& rng) override;
  std::int64_t population() const override { return poisson_.population(); }
  /// Of the untruncated batch: dividing by more than what is there only scales the gradient.
  double expected_batch_size() const override { return poisson_.expected_batch_size(); }
  std::int64_t steps_per_epoch() const override { return poisson_.steps_per_epoch(); }
  const SamplingRate& rate() const noexcept { return poisson_.rate(); }
  std::int64_t max_batch_size() const noexcept { return max_batch_size_; }

 private:
  PoissonSampler poisson_;
  std::int64_t max_batch_size_;
};

}  // namespace hushgrad
