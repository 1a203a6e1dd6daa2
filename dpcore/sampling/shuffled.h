// Epochs in which every record comes exactly once.
#pragma once

#include "dpcore/sampling/sampler.h"

namespace hushgrad {

enum class Order { shuffled, sequential };

/// Cuts a uniformly random order of the records (or their given order) into batches of batch_size; the last one may be
/// smaller. To be charged without amplification: within an epoch one record moves one batch, so an epoch of any length costs
/// as much as a single step on all the data (parallel composition), for a record replaced by another.
/// batch_size in [1, population], else InvalidArgument. Memory: 8 bytes a record for Order::shuffled.
class ShuffledSampler final : public EpochSampler {
 public:
  ShuffledSampler(std::int64_t population, std::int64_t batch_size, Order order = Order::shuffled);

  std::int64_t population() const override { return population_; }
  double expected_batch_size() const override { return static_cast<double>(batch_size_); }
  std::int64_t steps_per_epoch() const override { return divide_up(population_, batch_size_); }
  std::int64_t batch_size() const noexcept { return batch_size_; }
  Order order() const noexcept { return order_; }

 private:
  void prepare(Csprng& rng) override;
  Batch batch(std::int64_t step) const override;  // in the order of the epoch

  std::int64_t population_, batch_size_;
  Order order_;
  std::vector<std::int64_t> records_;
};

}  // namespace hushgrad
