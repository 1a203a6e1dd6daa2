#include "dpcore/sampling/sampler.h"

#include "dpcore/error.h"

namespace hushgrad {

Batch EpochSampler::draw(Csprng& rng) {
  if (epoch_ == 0 || step_ == steps_per_epoch()) begin_epoch(rng);
  return batch(step_++);
}

void EpochSampler::begin_epoch(Csprng& rng) {
  prepare(rng);
  ++epoch_;
  step_ = 0;
}

namespace internal {

std::int64_t checked_population(const char* where, std::int64_t population) {
  if (population >= 1 && population <= std::int64_t{1} << 62) return population;
  throw InvalidArgument(message("[", where, "] Expected population in [1, 2^62], received ", population,
                                ". Pass the number of records in the dataset."));
}

std::int64_t checked_batch_size(const char* where, std::int64_t batch_size, std::int64_t population) {
  if (batch_size >= 1 && batch_size <= population) return batch_size;
  throw InvalidArgument(message("[", where, "] Expected batch_size in [1, population = ", population, "], received ",
                                batch_size, ". Use at most the whole dataset."));
}

}  // namespace internal
}  // namespace hushgrad
