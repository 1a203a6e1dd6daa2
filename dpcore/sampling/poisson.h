// Poisson batch selection: what the accountants call "Poisson sampled with probability q".
#pragma once

#include <cstdint>
#include <vector>

#include "dpcore/random/csprng.h"

namespace hushgrad {

/// The comparison that decides one inclusion: of the 2^64 equally likely draws it takes floor(rate * 2^64).
/// rate in (0, 1].
class InclusionRule {
 public:
  explicit InclusionRule(double rate);
  bool takes(std::uint64_t draw) const noexcept { return draw <= last_; }
  bool never() const noexcept { return never_; }  ///< rate < 2^-64; takes() then means nothing

 private:
  std::uint64_t last_;
  bool never_;
};

/// Takes every record into the batch independently with probability q' = floor(sampling_rate * 2^64) / 2^64.
///
/// Guarantee: inclusions are independent between records and between draws, and q' <= sampling_rate with a
/// gap below 2^-64, so charging sampling_rate never understates. Batch sizes are Binomial(population, q'):
/// they vary, and a batch may be empty; an empty batch is a step like any other (noise only) and must be
/// charged.
///
/// population >= 1 records; sampling_rate in (0, 1], exactly 1 takes every record. Anything else, NaN
/// included, is InvalidArgument. A rate below 2^-64 takes nobody. The batch and its size are private data:
/// they are not for logs.
class PoissonSampler {
 public:
  PoissonSampler(std::int64_t population, double sampling_rate);

  /// Indices in [0, population), ascending, without repetition. Costs 8 random bytes a record.
  std::vector<std::int64_t> draw(Csprng& rng) const;

  std::int64_t population() const noexcept { return population_; }
  double sampling_rate() const noexcept { return sampling_rate_; }

 private:
  std::int64_t population_;
  double sampling_rate_;
  InclusionRule rule_;
};

}  // namespace hushgrad
