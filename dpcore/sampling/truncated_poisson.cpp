#include "dpcore/sampling/truncated_poisson.h"

#include <algorithm>

#include "dpcore/error.h"
#include "dpcore/random/exact.h"
#include "dpcore/random/word_stream.h"

namespace hushgrad {

TruncatedPoissonSampler::TruncatedPoissonSampler(std::int64_t population, SamplingRate rate, std::int64_t max_batch_size)
    : poisson_(population, rate), max_batch_size_(max_batch_size) {
  if (max_batch_size >= 1) return;
  throw InvalidArgument(message("[truncated_poisson] Expected max_batch_size >= 1, received ", max_batch_size,
                                ". Use more than the expected batch size, or gradients shrink."));
}

Batch TruncatedPoissonSampler::draw(Csprng& rng) {
  Batch batch = poisson_.draw(rng);
  const auto kept = static_cast<std::size_t>(max_batch_size_);
  if (batch.size() <= kept) return batch;
  // The first steps of a shuffle: a uniform choice of `kept`.
  WordStream words(rng);
  for (std::size_t i = 0; i < kept; ++i) std::swap(batch[i], batch[i + uniform_below(words, batch.size() - i)]);
  batch.resize(kept);
  std::sort(batch.begin(), batch.end());
  return batch;
}

}  // namespace hushgrad
