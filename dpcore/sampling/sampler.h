// What all ways of choosing batches have in common.
#pragma once

#include <cstdint>
#include <vector>

#include "dpcore/random/csprng.h"

namespace hushgrad {

/// The record numbers of one batch. Private data, and so is their count.
using Batch = std::vector<std::int64_t>;

/// Chooses batches of records out of [0, population) with randomness from the CSPRNG only. Batches hold no record twice and
/// are ascending unless the sampler says otherwise. An empty batch is a step like any other and must be charged.
/// Not thread-safe: one object a run.
class Sampler {
 public:
  virtual ~Sampler() = default;
  /// The next batch.
  virtual Batch draw(Csprng& rng) = 0;
  virtual std::int64_t population() const = 0;
  /// Public mean of the batch sizes: what a mean gradient is divided by.
  virtual double expected_batch_size() const = 0;
  /// Number of batches after which every record is expected once. Public.
  virtual std::int64_t steps_per_epoch() const = 0;
};

/// A sampler that fixes a whole epoch in advance: the cost is the epoch's, whether or not all of its batches are used.
class EpochSampler : public Sampler {
 public:
  /// Next batch of the epoch; the first call, and the first after the last batch, begin a new one.
  Batch draw(Csprng& rng) final;
  /// Begins an epoch with fresh randomness, whatever is left of the last.
  void begin_epoch(Csprng& rng);
  /// Number of epochs begun so far. The batch that draw() returned last belongs to the latest.
  std::int64_t epoch() const noexcept { return epoch_; }

 private:
  virtual void prepare(Csprng& rng) = 0;
  virtual Batch batch(std::int64_t step) const = 0;  // step < steps_per_epoch()

  std::int64_t epoch_ = 0;
  std::int64_t step_ = 0;  // of the next batch; 0 before the first epoch
};

/// n / d rounded up, without overflow. n >= 0, d >= 1.
constexpr std::int64_t divide_up(std::int64_t n, std::int64_t d) { return n / d + (n % d != 0 ? 1 : 0); }

namespace internal {
/// Returns `population` if it is in [1, 2^62]; else InvalidArgument in the name of `where`.
std::int64_t checked_population(const char* where, std::int64_t population);
/// Returns `batch_size` if it is in [1, population]; else InvalidArgument.
std::int64_t checked_batch_size(const char* where, std::int64_t batch_size, std::int64_t population);
}  // namespace internal
}  // namespace hushgrad
