#include "dpcore/sampling/poisson.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "dpcore/error.h"

namespace hushgrad {
namespace {

constexpr std::size_t kChunk = 2048;

struct Scratch {
  std::array<std::uint64_t, kChunk> draws;
  std::array<std::int64_t, kChunk> taken;
  // Draws and members of a batch are private: they do not stay behind on the stack.
  ~Scratch() {
    wipe(std::as_writable_bytes(std::span(draws)));
    wipe(std::as_writable_bytes(std::span(taken)));
  }
};

// Room for all but one batch in 10^9, from public numbers.
std::size_t usual_size(std::int64_t population, double sampling_rate) {
  const double mean = static_cast<double>(population) * sampling_rate;
  return static_cast<std::size_t>(
      std::min(static_cast<double>(population), mean + 6.0 * std::sqrt(mean) + 16.0));
}

std::int64_t checked_population(std::int64_t population) {
  if (population >= 1) return population;
  throw InvalidArgument(message("[poisson] Expected population >= 1, received ", population,
                                ". Pass the number of records in the dataset."));
}

double checked_rate(double sampling_rate) {
  if (sampling_rate > 0.0 && sampling_rate <= 1.0) return sampling_rate;
  throw InvalidArgument(message("[poisson] Expected sampling_rate in (0, 1], received ", sampling_rate,
                                ". Use expected_batch_size / population."));
}

}  // namespace

InclusionRule::InclusionRule(double rate) {
  const double included = std::floor(std::ldexp(rate, 64));  // exact: a double has 53 bits
  never_ = included < 1.0;
  last_ = rate == 1.0 ? std::numeric_limits<std::uint64_t>::max() : static_cast<std::uint64_t>(included) - 1;
}

PoissonSampler::PoissonSampler(std::int64_t population, double sampling_rate)
    : population_(checked_population(population)),
      sampling_rate_(checked_rate(sampling_rate)),
      rule_(sampling_rate) {}

std::vector<std::int64_t> PoissonSampler::draw(Csprng& rng) const {
  std::vector<std::int64_t> batch;
  if (rule_.never()) return batch;
  batch.reserve(usual_size(population_, sampling_rate_));
  Scratch scratch;
  for (std::int64_t start = 0; start < population_; start += kChunk) {
    const auto count = static_cast<std::size_t>(std::min<std::int64_t>(kChunk, population_ - start));
    rng.fill(std::as_writable_bytes(std::span(scratch.draws).first(count)));
    std::size_t found = 0;
    for (std::size_t i = 0; i < count; ++i) {
      scratch.taken[found] = start + static_cast<std::int64_t>(i);
      found += rule_.takes(scratch.draws[i]) ? 1 : 0;
    }
    batch.insert(batch.end(), scratch.taken.begin(),
                 scratch.taken.begin() + static_cast<std::ptrdiff_t>(found));
  }
  return batch;
}

}  // namespace hushgrad
