// How the batches of a run come to be: the sampler that draws them and the event that is charged for them come out of one
// value, so that they cannot disagree.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "accounting/event.h"
#include "dpcore/noise/precision.h"
#include "dpcore/sampling/sampler.h"
#include "dpcore/sampling/sampling_rate.h"
#include "dpcore/sampling/users.h"

namespace hushgrad {

enum class Sampling {
  poisson,            ///< every record independently with probability batch_size / population: amplified
  truncated_poisson,  ///< the same, cut to a random max_batch_size where it is larger
  fixed_size,         ///< exactly batch_size records, every set equally likely
  random_allocation,  ///< epochs in which every record chooses one of the batches: balls in bins
  shuffled,           ///< epochs in a random order, every record once: no amplification, charged once an epoch
  sequential,         ///< epochs in the order of the data set: charged every step
  users,              ///< every user independently, with all records or a bounded choice of them: amplified
};

/// The name in plans and messages: "poisson", ...
std::string_view name_of(Sampling sampling);
/// @throws InvalidArgument for a name that is none, listing those that are.
Sampling sampling_from(std::string_view name);

/// All numbers are public. Immutable once in use. q = batch_size / population.
///
///   | law               | charged                          | event for noise multiplier z           |
///   | ----------------- | -------------------------------- | -------------------------------------- |
///   | poisson           | every step                       | Poisson(q, Gaussian(z))                |
///   | truncated_poisson | every step                       | TruncatedSubsampledGaussian(n, q, max, z) |
///   | fixed_size        | every step                       | Poisson(q, Gaussian(z / 2))            |
///   | random_allocation | every epoch, before its 1st step | BallsInBins(steps, Gaussian(z))        |
///   | shuffled          | every epoch, before its 1st step | Gaussian(z / sqrt(5))                  |
///   | sequential        | every step                       | Gaussian(z / 2)                        |
///   | users             | every step                       | Poisson(q, Gaussian(z)), of a user     |
///
/// All hold for a record (a user) added or removed; the data set trained on is the larger one. C is the clipping bound.
/// fixed_size: with probability q the record is in the batch, and then it takes another's place, which moves the sum by 2 C; so
/// the pair is that of a Poisson batch at half the noise. Asked for a record replaced, the event is a bound with slack.
/// shuffled: with one record more, that record takes another's place in one batch, which moves by 2 C, and the other joins the
/// last batch, which moves by C: sqrt(5) C over the whole epoch (parallel composition; McSherry 2009).
/// sequential: a record more at the front moves the first record of every batch into another: 2 C in every step.
struct BatchLaw {
  Sampling sampling = Sampling::poisson;
  std::int64_t population = 0;      // records; of users: users
  std::int64_t batch_size = 0;      // expected, or exact
  std::int64_t max_batch_size = 0;  // of truncated_poisson
  std::shared_ptr<const UserRecords> users{};  // of users

  /// @throws InvalidArgument unless 1 <= batch_size <= population <= 2^62 and the law has what it needs.
  void check() const;
  std::unique_ptr<Sampler> make_sampler() const;
  SamplingRate rate() const { return {batch_size, population}; }
  /// What a mean gradient is divided by: batch_size, except where an epoch has a whole number of batches.
  double expected_batch_size() const;
  /// population / batch_size, rounded up.
  std::int64_t steps_per_epoch() const;
  bool charged_once_an_epoch() const;
  /// Whether every record is drawn with a probability, so that a rate describes the batches.
  bool has_rate() const;
  /// Of one step, or of one epoch, with noise of that precision (of one step). noise_multiplier 0 is charged as no protection
  /// at all.
  Event event(double noise_multiplier, const NoisePrecision& precision = {}) const;
  /// What is charged on top where the noise multiplier changes within an epoch that was charged with `before`.
  Event event_of_change(double before, double noise_multiplier, const NoisePrecision& precision = {}) const;

 private:
  Event ideal(double noise_multiplier) const;
};

}  // namespace hushgrad
