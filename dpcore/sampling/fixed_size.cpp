#include "dpcore/sampling/fixed_size.h"

#include "dpcore/random/word_stream.h"
#include "dpcore/sampling/uniform_subset.h"

namespace hushgrad {

FixedSizeSampler::FixedSizeSampler(std::int64_t population, std::int64_t batch_size)
    : population_(internal::checked_population("fixed_size", population)),
      batch_size_(internal::checked_batch_size("fixed_size", batch_size, population)) {}

Batch FixedSizeSampler::draw(Csprng& rng) {
  WordStream words(rng);
  return uniform_subset(words, population_, batch_size_);
}

}  // namespace hushgrad
