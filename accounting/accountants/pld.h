// Privacy loss distributions: the tight accountant. Bounds delta(epsilon) of a composition from both sides; how, and why
// the ends are safe, is derived in docs/accounting.md.
#pragma once

#include "accounting/accountants/accountant.h"
#include "accounting/accountants/gaussian.h"
#include "accounting/accountants/spending.h"

namespace hushgrad {

/// Accountant "pld" (the default). Typical width of an interval: 4e-4 of epsilon. Where the grid would have to be too
/// coarse (noise_multiplier below 0.02, more than about 10^8 steps) the upper end falls back to the RDP bound and the
/// interval is wide; it never fails. A lone Gaussian, any composition of plain Gaussians and a single sampled step are
/// exact up to rounding.
class PldAccountant : public Accountant {
 public:
  Interval epsilon(const Event& event, double delta, Adjacency adjacency = Adjacency::add_or_remove_one) const override;
  Interval delta(const Event& event, double epsilon, Adjacency adjacency = Adjacency::add_or_remove_one) const override;
};

Interval pld_epsilon(const Spending& spending, double delta);
Interval pld_delta(const Spending& spending, double epsilon);
/// The same upper ends without the cost of the lower ones.
double pld_epsilon_upper(const Spending& spending, double delta);
double pld_delta_upper(const Spending& spending, double epsilon);

/// The same of one direction alone: remove compares (with the record, without it), add the other way round; the bounds above
/// are the larger of both. Through the grid of losses, also where a closed form exists, so that one can be checked against the
/// other. An upper end of infinity (of 1): no grid fits.
/// Throws InvalidArgument for a spending with exposures, selections or finite precision.
Interval pld_direction_epsilon(const Spending& spending, double delta, Direction direction);
Interval pld_direction_delta(const Spending& spending, double epsilon, Direction direction);

}  // namespace hushgrad
