// Every record in a fixed number of an epoch's batches, chosen at random: balls in bins.
#pragma once

#include "dpcore/sampling/sampler.h"

namespace hushgrad {

/// Puts every record, independently of the others, into `participations` of the epoch's `steps` batches, each choice equally
/// likely; with one participation these are balls in bins. Chua et al. 2025, "Balls-and-bins sampling for DP-SGD"; Feldman
/// and Shenfeld 2025, "Privacy amplification by random allocation". To be charged once an epoch, as random allocation.
/// steps in [1, 2^31]; participations in [1, steps]; population * participations <= 2^40; else InvalidArgument.
/// Memory while an epoch is laid out: 12 bytes a participation.
class RandomAllocationSampler final : public EpochSampler {
 public:
  RandomAllocationSampler(std::int64_t population, std::int64_t steps, std::int64_t participations = 1);

  std::int64_t population() const override { return population_; }
  double expected_batch_size() const override;
  std::int64_t steps_per_epoch() const override { return steps_; }
  std::int64_t participations() const noexcept { return participations_; }

 private:
  void prepare(Csprng& rng) override;
  Batch batch(std::int64_t step) const override;  // ascending

  std::int64_t population_, steps_, participations_;
  std::vector<std::int64_t> records_;  // the epoch's batches, one after the other
  std::vector<std::int64_t> begins_;   // [steps + 1], into records_
};

}  // namespace hushgrad
