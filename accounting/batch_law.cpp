#include "accounting/batch_law.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <utility>

#include "dpcore/error.h"
#include "dpcore/sampling/fixed_size.h"
#include "dpcore/sampling/poisson.h"
#include "dpcore/sampling/random_allocation.h"
#include "dpcore/sampling/shuffled.h"
#include "dpcore/sampling/truncated_poisson.h"

namespace hushgrad {
namespace {

constexpr std::array<std::pair<Sampling, std::string_view>, 7> kNames{{
    {Sampling::poisson, "poisson"},
    {Sampling::truncated_poisson, "truncated_poisson"},
    {Sampling::fixed_size, "fixed_size"},
    {Sampling::random_allocation, "random_allocation"},
    {Sampling::shuffled, "shuffled"},
    {Sampling::sequential, "sequential"},
    {Sampling::users, "users"},
}};

constexpr double kRootOfFive = 2.23606797749979;  // rounded up

}  // namespace

std::string_view name_of(Sampling sampling) {
  for (const auto& [value, name] : kNames) {
    if (value == sampling) return name;
  }
  throw InvalidArgument("[sampling] Expected a law of batches, received a number that is none.");
}

Sampling sampling_from(std::string_view name) {
  std::string known;
  for (const auto& [value, its_name] : kNames) {
    if (its_name == name) return value;
    known += (known.empty() ? "\"" : ", \"") + std::string(its_name) + "\"";
  }
  throw InvalidArgument(message("[sampling] Expected one of ", known, ", received \"", name, "\"."));
}

void BatchLaw::check() const {
  if (population < 1 || population > SamplingRate::max_denominator || batch_size < 1 || batch_size > population) {
    throw InvalidArgument(message("[sampling] Expected 1 <= batch_size <= dataset_size <= 2^62, received ", batch_size, " and ", population,
                                  ". Use at most the whole data set."));
  }
  if (sampling == Sampling::truncated_poisson && max_batch_size < batch_size) {
    throw InvalidArgument(message("[sampling] Expected max_batch_size >= batch_size = ", batch_size, " with truncated_poisson, received ",
                                  max_batch_size, ". A smaller one would cut most batches."));
  }
  if (sampling == Sampling::users && (!users || users->users() != population)) {
    throw InvalidArgument("[sampling] Expected the owner of every record with sampling by users, received none or others. Pass user_ids.");
  }
}

std::unique_ptr<Sampler> BatchLaw::make_sampler() const {
  check();
  switch (sampling) {
    case Sampling::poisson: return std::make_unique<PoissonSampler>(population, rate());
    case Sampling::truncated_poisson: return std::make_unique<TruncatedPoissonSampler>(population, rate(), max_batch_size);
    case Sampling::fixed_size: return std::make_unique<FixedSizeSampler>(population, batch_size);
    case Sampling::random_allocation: return std::make_unique<RandomAllocationSampler>(population, steps_per_epoch());
    case Sampling::shuffled: return std::make_unique<ShuffledSampler>(population, batch_size, Order::shuffled);
    case Sampling::sequential: return std::make_unique<ShuffledSampler>(population, batch_size, Order::sequential);
    case Sampling::users: return std::make_unique<UserBatches>(UserSampler(*users, rate()));
  }
  throw InvalidArgument("[sampling] Expected a law of batches, received a number that is none.");
}

double BatchLaw::expected_batch_size() const {
  if (sampling != Sampling::random_allocation) return static_cast<double>(batch_size);
  return static_cast<double>(population) / static_cast<double>(steps_per_epoch());
}

std::int64_t BatchLaw::steps_per_epoch() const { return divide_up(population, batch_size); }

bool BatchLaw::charged_once_an_epoch() const { return sampling == Sampling::shuffled || sampling == Sampling::random_allocation; }

bool BatchLaw::has_rate() const {
  return sampling != Sampling::shuffled && sampling != Sampling::sequential && sampling != Sampling::random_allocation;
}

Event BatchLaw::ideal(double z) const {
  switch (sampling) {
    case Sampling::poisson:
    case Sampling::users: return Event::poisson_sampled(rate().charged(), Event::gaussian(z));
    case Sampling::truncated_poisson:
      return Event::truncated_subsampled_gaussian(population, rate().charged(), std::min(max_batch_size, population), z);
    case Sampling::fixed_size: return Event::poisson_sampled(rate().charged(), Event::gaussian(z / 2));
    case Sampling::random_allocation: return Event::balls_in_bins(steps_per_epoch(), Event::gaussian(z));
    case Sampling::shuffled: return Event::gaussian(std::nextafter(z / kRootOfFive, 0.0));
    case Sampling::sequential: return Event::gaussian(z / 2);
  }
  return Event::non_private();
}

namespace {

// steps: that one charge pays for.
Event with_precision(Event ideal, const NoisePrecision& precision, double steps) {
  if (precision.exact()) return ideal;
  return Event::finite_precision(std::move(ideal), precision.order, steps * precision.divergence, std::min(1.0, steps * precision.failure));
}

}  // namespace

Event BatchLaw::event(double noise_multiplier, const NoisePrecision& precision) const {
  if (noise_multiplier == 0) return Event::non_private();
  return with_precision(ideal(noise_multiplier), precision, charged_once_an_epoch() ? static_cast<double>(steps_per_epoch()) : 1.0);
}

Event BatchLaw::event_of_change(double before, double noise_multiplier, const NoisePrecision& precision) const {
  if (sampling != Sampling::random_allocation || noise_multiplier == 0 || before == 0) return event(noise_multiplier, precision);
  // The record is in one batch of the epoch, whichever noise that one gets: without amplification the smaller one covers both.
  return with_precision(Event::gaussian(std::min(before, noise_multiplier)), precision, static_cast<double>(steps_per_epoch()));
}

}  // namespace hushgrad
