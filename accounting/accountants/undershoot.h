// How far below zero the losses of a composition fall without the record: a Chernoff bound.
#pragma once

#include <vector>

#include "accounting/accountants/step.h"

namespace hushgrad {

/// Of one step in direction remove, an upper bound (rounding included) of log E_Q[exp(-tilt * loss)] >= 0, tilt > 0; infinite
/// where none is known. With R = 1 + u the likelihood ratio, u >= -q and E_Q[u] = 0,
///   (1 + u)^-tilt - 1 + tilt u <= min(tilt (tilt + 1) (1 - q)^-(tilt + 2) u^2 / 2, tilt u if u >= 0)
/// by Taylor's theorem, and because (1 + u)^-tilt <= 1 where u >= 0.
double log_undershoot_moment(const Step& step, double tilt);

/// The losses of all steps together are below -depth with probability at most exp(log_probability) under Q, by the moment
/// of that tilt. An infinite depth: nothing is known.
struct Undershoot {
  double depth, tilt;
};
Undershoot undershoot(const std::vector<Step>& steps, double log_probability);

}  // namespace hushgrad
