#include "dpcore/sampling/shuffled.h"

#include <algorithm>
#include <numeric>

#include "dpcore/random/exact.h"
#include "dpcore/random/word_stream.h"

namespace hushgrad {

ShuffledSampler::ShuffledSampler(std::int64_t population, std::int64_t batch_size, Order order)
    : population_(internal::checked_population("shuffled", population)),
      batch_size_(internal::checked_batch_size("shuffled", batch_size, population)),
      order_(order) {}

void ShuffledSampler::prepare(Csprng& rng) {
  if (order_ == Order::sequential) return;
  records_.resize(static_cast<std::size_t>(population_));
  std::iota(records_.begin(), records_.end(), 0);
  WordStream words(rng);
  for (std::size_t left = records_.size(); left > 1; --left) std::swap(records_[left - 1], records_[uniform_below(words, left)]);
}

Batch ShuffledSampler::batch(std::int64_t step) const {
  const std::int64_t first = step * batch_size_;
  const std::int64_t size = std::min(batch_size_, population_ - first);
  if (order_ == Order::shuffled) return {records_.begin() + first, records_.begin() + first + size};
  Batch batch(static_cast<std::size_t>(size));
  std::iota(batch.begin(), batch.end(), first);
  return batch;
}

}  // namespace hushgrad
