// One release with discrete Gaussian noise: delta as a sum over the integers, also where the noise is so wide that the sum is long.
#pragma once

#include "accounting/accountants/gaussian.h"

namespace hushgrad {

/// log of the sum over all integers x of exp(-x^2 / (2 s^2)), s > 0, right to a few units of rounding.
double discrete_gaussian_log_norm(double s);

/// log delta of N_Z(shift, s^2) against N_Z(0, s^2), the same in both directions; finite epsilon >= 0, shift >= 1 an integer, s > 0.
/// The sum itself up to s = 400, beyond by Euler-Maclaurin with its remainder in `error` (docs/accounting.md, (8)).
LogDelta discrete_gaussian_log_delta(double s, double shift, double epsilon);

}  // namespace hushgrad
