#include "dpcore/sampling/poisson.h"

#include <algorithm>
#include <cmath>

#include "dpcore/random/exact.h"
#include "dpcore/random/word_stream.h"

namespace hushgrad {
namespace {

// A distance costs as much as fifty to a hundred records looked at one by one.
constexpr std::int64_t kDistancePays = 64;

// Room for all but one batch in 10^9, from public numbers.
std::size_t usual_size(std::int64_t population, double mean) {
  return static_cast<std::size_t>(std::min(static_cast<double>(population), mean + 6.0 * std::sqrt(mean) + 16.0));
}

}  // namespace

PoissonSampler::PoissonSampler(std::int64_t population, SamplingRate rate)
    : population_(internal::checked_population("poisson", population)), rate_(rate), distance_(rate) {}

double PoissonSampler::expected_batch_size() const {
  return static_cast<double>(static_cast<long double>(population_) * static_cast<long double>(rate_.numerator()) /
                             static_cast<long double>(rate_.denominator()));
}

Batch PoissonSampler::draw(Csprng& rng) {
  return rate_.denominator() / rate_.numerator() < kDistancePays ? by_record(rng) : by_distance(rng);
}

Batch PoissonSampler::by_record(Csprng& rng) const {
  Batch batch;
  batch.reserve(usual_size(population_, expected_batch_size()));
  WordStream words(rng);
  const auto numerator = static_cast<std::uint64_t>(rate_.numerator());
  const auto denominator = static_cast<std::uint64_t>(rate_.denominator());
  for (std::int64_t record = 0; record < population_; ++record) {
    if (bernoulli(words, numerator, denominator)) batch.push_back(record);
  }
  return batch;
}

Batch PoissonSampler::by_distance(Csprng& rng) const {
  Batch batch;
  batch.reserve(usual_size(population_, expected_batch_size()));
  WordStream words(rng);
  std::int64_t record = distance_.draw(words, population_);
  while (record < population_) {
    batch.push_back(record);
    ++record;
    record += distance_.draw(words, population_ - record);
  }
  return batch;
}

}  // namespace hushgrad
