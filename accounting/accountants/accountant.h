// The question every other part asks: how much privacy did this event spend?
#pragma once

#include <string_view>
#include <vector>

#include "accounting/accountants/adjacency.h"
#include "accounting/accountants/interval.h"
#include "accounting/event.h"

namespace hushgrad {

/// Bounds the privacy of an event under an adjacency. Stateless: the same event always gives the same
/// bounds, from any thread.
class Accountant {
 public:
  virtual ~Accountant() = default;

  /// Bounds of the smallest epsilon >= 0 for which the event is (epsilon, delta)-DP.
  virtual Interval epsilon(const Event& event, double delta, Adjacency adjacency) const = 0;
  /// Bounds of the smallest delta for which the event is (epsilon, delta)-DP.
  virtual Interval delta(const Event& event, double epsilon, Adjacency adjacency) const = 0;
};

/// The accountant of that name; "pld" is the tightest. Throws InvalidArgument for an unknown name.
const Accountant& accountant(std::string_view name);
std::vector<std::string_view> accountant_names();

/// epsilon of `event` at `delta`, where 0 < delta < 1. Guarantee: the event is (upper, delta)-DP, and is not
/// (e, delta)-DP for any e < lower.
///
/// Supported are all compositions of events whose bound is derived in docs/accounting.md for that adjacency; it also says
/// for which only an upper bound is known (lower is then 0, or what the rest spends). Nothing released (no events, count 0, sampling_probability 0) is {0, 0}; noise_multiplier 0 and NonPrivate have upper = infinity.
/// Throws InvalidArgument for delta outside (0, 1) or NaN, Unsupported (naming the sub-event) for what has no bound.
Interval epsilon(const Event& event, double delta, std::string_view accountant_name = "pld",
                 Adjacency adjacency = Adjacency::add_or_remove_one);

/// delta of `event` at `epsilon` >= 0 (infinity is allowed). Both ends lie in [0, 1].
/// Throws InvalidArgument for a negative or NaN epsilon, Unsupported as epsilon() does.
Interval delta(const Event& event, double epsilon, std::string_view accountant_name = "pld",
               Adjacency adjacency = Adjacency::add_or_remove_one);

}  // namespace hushgrad
