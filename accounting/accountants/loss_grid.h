// One Poisson-sampled Gaussian step, replaced by a step whose privacy loss lies on a grid.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "accounting/accountants/gaussian.h"

namespace hushgrad {

enum class Bound { lower, upper };

/// Outcomes with the largest losses of a step, kept out of its grid: their probability under P is without + excess.
struct Beyond {
  double without = 0;  // their probability under Q
  double excess = 0;   // >= 0
  double lowest_beyond = std::numeric_limits<double>::infinity();  // a lower bound of their losses
  double lowest = -std::numeric_limits<double>::infinity();        // of all losses of the step
};

/// A measure on the losses offset + k * spacing. Composing `upper` measures gives a delta that is never below the true one,
/// composing `lower` measures one that is never above it.
struct GridLoss {
  double offset = 0;                 // |offset| <= spacing
  std::vector<std::int64_t> places;  // ascending; masses[i] sits at loss offset + places[i] * spacing
  std::vector<double> masses;        // tilted: probability * exp(tilt * loss - log_scale)
  double log_scale = 0;
  double infinite = 0;         // probability of loss = infinity, not tilted
  Beyond beyond;               // outcomes that are neither above nor in `infinite`
  double relative_error = 0;   // every mass is right up to this factor 1 +- relative_error ...
  double loss_error = 0;       // ... and to this absolute error of its loss (floating point only)

  double loss(std::size_t i, double spacing) const { return offset + static_cast<double>(places[i]) * spacing; }
};

/// The released values that are covered, in standard deviations: `around` the mean without the record, and up to `above`
/// the one with it. Losses above `cut` are not (direction remove).
struct Reach {
  Reach(double both) : around(both), above(both) {}
  Reach(double around, double above) : around(around), above(above) {}
  double around, above;
  double cut = std::numeric_limits<double>::infinity();

  double low(double noise_multiplier) const { return -around * noise_multiplier; }
  double high(double noise_multiplier) const { return std::max(around * noise_multiplier, 1 + above * noise_multiplier); }
};

struct GridOptions {
  double spacing;    // > 0; spacing * (1 + tilt) <= 1
  double tilt;       // >= 0
  Reach reach;       // the rest goes to `infinite` (or is left out)
  double log_scale;  // roughly log of the sum of probability * exp(tilt * loss): keeps masses near 1
  // Where the tilted density of losses (of masses as above) is d, grid points may be exp((log_fine - log d) / 3) spacings
  // apart, up to `widest`: the error of a cell grows with d and the square of its width. By default all are one apart.
  double log_fine = -std::numeric_limits<double>::infinity();
  double widest = 0;
};

/// 0 < sampling_probability <= 1, noise_multiplier > 0.
///
/// upper: every outcome with loss l between two grid points is split onto them so that both probabilities (with and
/// without the sample) are kept. delta as a function of e^epsilon is convex, and this is its linear interpolation
/// ("connect the dots", Doroshenko et al. 2022), so the replaced step dominates the true one.
///
/// lower: the values at the grid points are lowered until every connecting line lies below a tangent of the true
/// curve, then made convex. A curve below the true one is dominated by it, in composition too.
GridLoss grid_loss(double sampling_probability, double noise_multiplier, Direction direction, Bound bound,
                   const GridOptions& options);

}  // namespace hushgrad
