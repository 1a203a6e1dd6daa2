// Dominating pairs of the mechanisms that are not plain or Poisson-sampled Gaussians. Every pair is at sensitivity 1 in
// the unit of its noise, and is proven in docs/accounting.md.
#pragma once

#include <cstdint>
#include <vector>

#include "accounting/accountants/loss_pair.h"

namespace hushgrad {

/// P = sum of probs[i] N(shifts[i], s^2), Q = N(0, s^2). s > 0, shifts >= 0, not all 0 with probability > 0.
LossPairPointer gaussian_mixture_pair(double s, std::vector<double> shifts, std::vector<double> probs);

/// P = (1 - q) N(0, s^2) + q N(1, s^2), Q = (1 - q) N(0, s^2) + q N(-1, s^2): a Poisson-sampled Gaussian when the record is
/// replaced by another. 0 < q < 1, s > 0.
LossPairPointer substituted_gaussian_pair(double q, double s);

/// The pair whose trade-off at every ratio >= 1 is that of ((1 - q) N(0, s^2) + q N(1, s^2), N(0, s^2)), and below 1 the
/// mirrored one: bounds a Gaussian at distance 1 that is looked at with probability q, by advanced joint convexity
/// (Balle, Barthe, Gaboardi 2018, Theorem 2). An upper bound only. 0 < q <= 1, s > 0.
LossPairPointer replaced_gaussian_pair(double q, double s);

/// P = (1 - q) Laplace(0, b) + q Laplace(1, b), Q = Laplace(0, b). 0 < q <= 1, b > 0.
LossPairPointer laplace_pair(double q, double b);

/// P = N_Z(shift, s^2), Q = N_Z(0, s^2). shift >= 1, s > 0.
LossPairPointer discrete_gaussian_pair(double s, std::int64_t shift);

/// P = average over i of N(e_i, s^2 I), Q = N(0, s^2 I) in `bins` dimensions: one pass of balls in bins. Moved upward, so
/// for upper ends only. bins >= 1, s > 0.
LossPairPointer random_allocation_pair(std::int64_t bins, double s);

/// With probability `weight` (independent of the record, and known to the attacker) the pair is `second`, else `first`.
LossPairPointer mixed_pair(double weight, LossPairPointer first, LossPairPointer second);

}  // namespace hushgrad
