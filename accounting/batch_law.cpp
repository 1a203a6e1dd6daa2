#include "accounting/batch_law.h"

#include <array>
#include <cmath>
#include <string>
#include <utility>

#include "dpcore/error.h"
#include "dpcore/sampling/poisson.h"
#include "dpcore/sampling/shuffled.h"

namespace hushgrad {
namespace {

constexpr std::array<std::pair<Sampling, std::string_view>, 3> kNames{{
    {Sampling::poisson, "poisson"},
    {Sampling::shuffled, "shuffled"},
    {Sampling::sequential, "sequential"},
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
  if (population >= 1 && population <= SamplingRate::max_denominator && batch_size >= 1 && batch_size <= population) return;
  throw InvalidArgument(message("[sampling] Expected 1 <= batch_size <= dataset_size <= 2^62, received ", batch_size, " and ", population,
                                ". Use at most the whole data set."));
}

std::unique_ptr<Sampler> BatchLaw::make_sampler() const {
  check();
  if (sampling == Sampling::poisson) return std::make_unique<PoissonSampler>(population, rate());
  return std::make_unique<ShuffledSampler>(population, batch_size, sampling == Sampling::shuffled ? Order::shuffled : Order::sequential);
}

std::int64_t BatchLaw::steps_per_epoch() const { return divide_up(population, batch_size); }

bool BatchLaw::charged_once_an_epoch() const { return sampling == Sampling::shuffled; }

Event BatchLaw::event(double noise_multiplier) const {
  if (noise_multiplier == 0) return Event::non_private();
  if (sampling == Sampling::poisson) return Event::poisson_sampled(rate().charged(), Event::gaussian(noise_multiplier));
  if (sampling == Sampling::sequential) return Event::gaussian(noise_multiplier / 2);
  return Event::gaussian(std::nextafter(noise_multiplier / kRootOfFive, 0.0));
}

}  // namespace hushgrad
