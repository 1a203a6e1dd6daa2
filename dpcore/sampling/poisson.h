// Poisson batch selection: what the accountants call "Poisson sampled with probability q".
#pragma once

#include <cstdint>

#include "dpcore/sampling/geometric.h"
#include "dpcore/sampling/sampler.h"
#include "dpcore/sampling/sampling_rate.h"

namespace hushgrad {

/// Takes every record into the batch independently with probability q = rate, exactly.
///
/// Guarantee: inclusions are independent between records, draws and samplers, each with the probability of the fraction
/// itself; charging rate.charged() never understates. Batch sizes are Binomial(population, q): they vary, and a batch may be
/// empty.
///
/// Cost: for q < 1/64 the distance to the next member is drawn, so time and memory follow the batch and not the data set
/// (a thousand of 10^9 records take about 0.2 ms); for larger q eight random bytes a record.
/// population in [1, 2^62], else InvalidArgument.
class PoissonSampler final : public Sampler {
 public:
  PoissonSampler(std::int64_t population, SamplingRate rate);

  /// Ascending.
  Batch draw(Csprng& rng) override;
  std::int64_t population() const override { return population_; }
  double expected_batch_size() const override;
  /// 1 / q, rounded up.
  std::int64_t steps_per_epoch() const override { return divide_up(rate_.denominator(), rate_.numerator()); }
  const SamplingRate& rate() const noexcept { return rate_; }

 private:
  Batch by_record(Csprng& rng) const;
  Batch by_distance(Csprng& rng) const;

  std::int64_t population_;
  SamplingRate rate_;
  Geometric distance_;
};

}  // namespace hushgrad
