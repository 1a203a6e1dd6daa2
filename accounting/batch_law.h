// How the batches of a run come to be: the sampler that draws them and the event that is charged for them come out of one
// value, so that they cannot disagree.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "accounting/event.h"
#include "dpcore/sampling/sampler.h"
#include "dpcore/sampling/sampling_rate.h"

namespace hushgrad {

enum class Sampling {
  poisson,     ///< every record independently with probability batch_size / population: amplified
  shuffled,    ///< epochs in a random order, every record once: no amplification, charged once an epoch
  sequential,  ///< epochs in the order of the data set: charged every step
};

/// The name in plans and messages: "poisson", ...
std::string_view name_of(Sampling sampling);
/// @throws InvalidArgument for a name that is none, listing those that are.
Sampling sampling_from(std::string_view name);

/// population and batch_size are public. Immutable once in use.
///
///   | law        | charged                          | event for noise multiplier z |
///   | ---------- | -------------------------------- | ---------------------------- |
///   | poisson    | every step                       | Poisson(q, Gaussian(z))      |
///   | shuffled   | every epoch, before its 1st step | Gaussian(z / sqrt(5))        |
///   | sequential | every step                       | Gaussian(z / 2)              |
///
/// All hold for a record added or removed; the last two for a record replaced, too. C is the clipping bound.
/// shuffled: with one record more, that record takes another's place in one batch, which moves by 2 C, and the other joins the
/// last batch, which moves by C: sqrt(5) C over the whole epoch (parallel composition; McSherry 2009).
/// sequential: a record more at the front moves the first record of every batch into another: 2 C in every step.
struct BatchLaw {
  Sampling sampling = Sampling::poisson;
  std::int64_t population = 0;  // records
  std::int64_t batch_size = 0;  // expected, or exact

  /// @throws InvalidArgument unless 1 <= batch_size <= population <= 2^62.
  void check() const;
  std::unique_ptr<Sampler> make_sampler() const;
  SamplingRate rate() const { return {batch_size, population}; }
  /// population / batch_size, rounded up.
  std::int64_t steps_per_epoch() const;
  bool charged_once_an_epoch() const;
  /// Of one step, or of one epoch. noise_multiplier 0 is charged as no protection at all.
  Event event(double noise_multiplier) const;
};

}  // namespace hushgrad
