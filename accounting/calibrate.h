// The two inverse questions: how much noise a budget needs, and how many steps it pays for.
#pragma once

#include <cstdint>
#include <functional>

#include "accounting/event.h"

namespace hushgrad {

/// The smallest noise multiplier (to about 1e-3 relative, rounded up) with which `steps` Poisson-sampled Gaussian steps
/// stay within (target_epsilon, target_delta) under add-or-remove-one adjacency.
///
/// Guarantee: epsilon(those steps with the returned multiplier, target_delta).upper <= target_epsilon.
/// sampling_rate in [0, 1], steps >= 0, target_epsilon > 0 and finite, target_delta in (0, 1). Returns 0 where nothing
/// is released (steps or sampling_rate 0).
/// Throws InvalidArgument outside those domains or where no noise multiplier up to 1e9 suffices.
double calibrate_noise(double target_epsilon, double target_delta, double sampling_rate, std::int64_t steps);

/// The same for any mechanism: event_of(noise_multiplier) is all that is to be released, and spends less the more noise there
/// is. Asked for noise multipliers in (0, 1e9]. Returns 0 where nothing is released.
/// Guarantee: epsilon(event_of(the result), target_delta).upper <= target_epsilon. Throws as above, and Unsupported for an event
/// without a bound.
double calibrate_noise_of(const std::function<Event(double noise_multiplier)>& event_of, double target_epsilon, double target_delta);

/// The largest k <= 10^9 such that epsilon(`history` and then k times `step`, target_delta).upper <= target_epsilon;
/// 0 where not even one fits. A step that spends nothing gives 10^9.
///
/// Never too large: the bound is asked for the k that is returned. Up to 10^4 steps it is the largest; above it may fall
/// short of that by 2e-4 of k, so ask again when it is used up.
/// Throws InvalidArgument for target_epsilon negative, infinite or NaN and for target_delta outside (0, 1), Unsupported
/// for an event that has no bound.
std::int64_t affordable_steps(const Event& history, const Event& step, double target_epsilon, double target_delta);

}  // namespace hushgrad
