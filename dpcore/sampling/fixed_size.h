// Batches of one size, drawn without replacement.
#pragma once

#include "dpcore/sampling/sampler.h"

namespace hushgrad {

/// Every set of batch_size records is equally likely, independently of all other batches. To be charged for a record
/// replaced by another (replace-one), as sampling without replacement. batch_size in [1, population], else InvalidArgument.
/// Cost follows the batch (Floyd's algorithm).
class FixedSizeSampler final : public Sampler {
 public:
  FixedSizeSampler(std::int64_t population, std::int64_t batch_size);

  /// Ascending, exactly batch_size().
  Batch draw(Csprng& rng) override;
  std::int64_t population() const override { return population_; }
  double expected_batch_size() const override { return static_cast<double>(batch_size_); }
  std::int64_t steps_per_epoch() const override { return divide_up(population_, batch_size_); }
  std::int64_t batch_size() const noexcept { return batch_size_; }

 private:
  std::int64_t population_, batch_size_;
};

}  // namespace hushgrad
