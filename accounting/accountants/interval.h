#pragma once

namespace hushgrad {

/// The true value lies in [lower, upper]. 0 <= lower <= upper; upper may be infinite, neither is ever NaN.
/// Only `upper` is a privacy guarantee; `lower` says how much of it is slack of the computation.
struct Interval {
  double lower;
  double upper;
};

}  // namespace hushgrad
