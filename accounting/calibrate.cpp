#include "accounting/calibrate.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "accounting/accountants/gaussian.h"
#include "accounting/accountants/pld.h"
#include "accounting/accountants/root.h"
#include "accounting/accountants/spending.h"
#include "dpcore/error.h"

namespace hushgrad {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kLargestNoise = 1e9;
constexpr double kNoiseTolerance = 2e-4;
constexpr std::int64_t kMostSteps = 1'000'000'000;
// Up to here the largest number of steps is found exactly, above within this fraction.
constexpr std::int64_t kExactBelow = 10'000;

void check_target(const char* where, double target_epsilon, double target_delta) {
  if (!(target_epsilon >= 0 && target_epsilon < kInfinity)) {
    throw InvalidArgument(message("[", where, "] Expected a finite target_epsilon >= 0, received ", target_epsilon,
                                  ". Give the epsilon that the approval allows."));
  }
  if (!(target_delta > 0 && target_delta < 1)) {
    throw InvalidArgument(message("[", where, "] Expected 0 < target_delta < 1, received ", target_delta,
                                  ". Choose delta well below 1 / data set size."));
  }
}

// The variance of the likelihood ratio adds up like mu^2 of a Gaussian where many small steps are composed.
double variance(const Spending& spending) {
  double total = spending.mu_squared;
  for (const SampledGaussian& step : spending.sampled) {
    const double q = step.sampling_probability;
    total += step.count * q * q * std::expm1(1 / (step.noise_multiplier * step.noise_multiplier));
  }
  return total;
}

// Only a guess: mu of a Gaussian that meets the target just so.
double likely_mu(double target_epsilon, double target_delta) {
  const auto slack = [&](double mu) {
    return mu == 0 ? kInfinity : std::log(target_delta) - gaussian_log_delta(mu, target_epsilon).value;
  };
  return find_crossing(slack, 1, 0.5, 1e-3).below;
}

// Only a guess: the noise with which steps * q^2 (exp(1 / z^2) - 1) is that mu^2. at_one: the spending of noise multiplier 1.
double likely_noise(const Spending& at_one, double target_epsilon, double target_delta) {
  const double mu = likely_mu(target_epsilon, target_delta);
  if (at_one.only_gaussian()) return std::clamp(std::sqrt(at_one.mu_squared) / mu, 0.02, 1e6);
  if (at_one.sampled.size() != 1) return 1;
  const SampledGaussian& step = at_one.sampled.front();
  const double q = step.sampling_probability, each = mu * mu / (step.count * q * q);
  return each > 0 && each < 1e300 ? std::clamp(1 / std::sqrt(std::log1p(each)) / step.noise_multiplier, 0.02, 1e6) : 1;
}

// Only a guess: how many steps until a Gaussian of that variance reaches the target.
double likely_steps(const Spending& history, const Spending& step, double target_epsilon, double target_delta) {
  const double mu = likely_mu(target_epsilon, target_delta);
  return (mu * mu - variance(history)) / variance(step);
}

}  // namespace

double calibrate_noise(double target_epsilon, double target_delta, double sampling_rate, std::int64_t steps) {
  return calibrate_noise_of(
      [&](double z) { return Event::self_composed(Event::poisson_sampled(sampling_rate, Event::gaussian(z)), steps); }, target_epsilon,
      target_delta);
}

double calibrate_noise_of(const std::function<Event(double)>& event_of, double target_epsilon, double target_delta) {
  check_target("calibrate_noise", target_epsilon, target_delta);
  if (target_epsilon == 0) {
    throw InvalidArgument("[calibrate_noise] Expected target_epsilon > 0, received 0. Release nothing instead.");
  }
  // Same domain, same messages as the events themselves.
  const Spending at_one = flatten(event_of(1));
  if (at_one.nothing()) return 0;

  // Asked as the promise is made: where this is at most 0, the multiplier meets the target.
  const auto excess = [&](double noise_multiplier) {
    if (noise_multiplier > kLargestNoise) return -kInfinity;
    if (noise_multiplier == 0) return kInfinity;
    const double epsilon = pld_epsilon_upper(flatten(event_of(noise_multiplier)), target_delta);
    const double ratio = std::log(epsilon / target_epsilon);
    return epsilon <= target_epsilon ? std::min(ratio, 0.0) : std::max(ratio, 1e-300);
  };
  const double guess = likely_noise(at_one, target_epsilon, target_delta);
  const double noise_multiplier = find_crossing(excess, guess, 0.03 * guess, kNoiseTolerance).above;
  if (noise_multiplier <= kLargestNoise) return noise_multiplier;
  throw InvalidArgument(message("[calibrate_noise] Expected a target that some noise multiplier up to ", kLargestNoise,
                                " meets, received target_epsilon ", target_epsilon, " at target_delta ", target_delta,
                                ". Raise the target or take fewer steps."));
}

std::int64_t affordable_steps(const Event& history, const Event& step, double target_epsilon, double target_delta) {
  check_target("affordable_steps", target_epsilon, target_delta);
  const auto after = [&](std::int64_t k) { return flatten(Event::composed({history, Event::self_composed(step, k)})); };
  const auto fits = [&](std::int64_t k) { return pld_epsilon_upper(after(k), target_delta) <= target_epsilon; };
  const Spending one = flatten(step);
  if (one.nothing()) return fits(0) ? kMostSteps : 0;
  if (!fits(1)) return 0;

  // A delta at the target epsilon costs one transform, an epsilon several: find the place with the former.
  const double log_target = std::log(target_delta);
  const auto slack = [&](double k) {
    if (k <= 1) return kInfinity;
    if (k > static_cast<double>(kMostSteps)) return -kInfinity;
    return log_target - std::log(pld_delta_upper(after(static_cast<std::int64_t>(k)), target_epsilon));
  };
  const double likely = std::clamp(likely_steps(flatten(history), one, target_epsilon, target_delta), 2.0,
                                   static_cast<double>(kMostSteps));
  const double place = find_crossing(slack, likely, 0.05 * likely, 3e-5).below;
  auto k = std::clamp<std::int64_t>(static_cast<std::int64_t>(place), 1, kMostSteps);
  if (k > kExactBelow) {
    while (k > 1 && !fits(k)) k -= std::max<std::int64_t>(1, k / kExactBelow);
    return k;
  }
  std::int64_t good = 1, bad = kMostSteps + 1;
  const auto try_at = [&](std::int64_t at) {
    if (at > good && at < bad) (fits(at) ? good : bad) = at;
  };
  for (std::int64_t reach = 0; good < k && bad > k; reach = 4 * reach + 1) try_at(k - reach);
  for (std::int64_t reach = 1; bad > kMostSteps && good < kMostSteps; reach *= 4) try_at(good + reach);
  while (bad - good > 1) try_at(good + (bad - good) / 2);
  return good;
}

}  // namespace hushgrad
