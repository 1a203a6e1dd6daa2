#include "dpcore/sampling/random_allocation.h"

#include "dpcore/error.h"
#include "dpcore/random/exact.h"
#include "dpcore/random/word_stream.h"
#include "dpcore/sampling/uniform_subset.h"

namespace hushgrad {
namespace {

void check(std::int64_t population, std::int64_t steps, std::int64_t participations) {
  if (steps < 1 || steps > std::int64_t{1} << 31) {
    throw InvalidArgument(message("[random_allocation] Expected steps in [1, 2^31], received ", steps,
                                  ". Use population / batch_size, rounded up."));
  }
  if (participations < 1 || participations > steps) {
    throw InvalidArgument(message("[random_allocation] Expected participations in [1, steps = ", steps, "], received ",
                                  participations, ". One is balls in bins."));
  }
  if (population > (std::int64_t{1} << 40) / participations) {
    throw InvalidArgument(message("[random_allocation] Expected population * participations <= 2^40, received ", population,
                                  " * ", participations, ". Use Poisson batches, which need no memory for the whole epoch."));
  }
}

// The steps of one record.
template <typename Words>
void choose_steps(Words& words, std::int64_t steps, std::int64_t participations, std::vector<std::uint32_t>& chosen) {
  if (participations == 1) {
    chosen.push_back(static_cast<std::uint32_t>(uniform_below(words, static_cast<std::uint64_t>(steps))));
    return;
  }
  for (std::int64_t step : uniform_subset(words, steps, participations)) chosen.push_back(static_cast<std::uint32_t>(step));
}

}  // namespace

RandomAllocationSampler::RandomAllocationSampler(std::int64_t population, std::int64_t steps, std::int64_t participations)
    : population_(internal::checked_population("random_allocation", population)), steps_(steps), participations_(participations) {
  check(population, steps, participations);
}

double RandomAllocationSampler::expected_batch_size() const {
  return static_cast<double>(population_) * static_cast<double>(participations_) / static_cast<double>(steps_);
}

void RandomAllocationSampler::prepare(Csprng& rng) {
  std::vector<std::uint32_t> chosen;  // [population * participations]
  chosen.reserve(static_cast<std::size_t>(population_ * participations_));
  WordStream words(rng);
  for (std::int64_t record = 0; record < population_; ++record) choose_steps(words, steps_, participations_, chosen);

  begins_.assign(static_cast<std::size_t>(steps_) + 1, 0);
  for (std::uint32_t step : chosen) ++begins_[step + 1];
  for (std::size_t step = 1; step < begins_.size(); ++step) begins_[step] += begins_[step - 1];
  std::vector<std::int64_t> next(begins_.begin(), begins_.end() - 1);
  records_.resize(chosen.size());
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    records_[static_cast<std::size_t>(next[chosen[i]]++)] = static_cast<std::int64_t>(i) / participations_;
  }
}

Batch RandomAllocationSampler::batch(std::int64_t step) const {
  const auto at = static_cast<std::size_t>(step);
  return {records_.begin() + begins_[at], records_.begin() + begins_[at + 1]};
}

}  // namespace hushgrad
