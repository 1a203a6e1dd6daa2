// The cells between grid points of privacy loss, and how what they hold is moved onto the points: up or down.
#pragma once

#include <cstdint>
#include <vector>

namespace hushgrad {

/// What the grid cell [k h, (k + m) h] between two grid points holds, w = m h wide, as integrals over the true loss
/// l = k h + u with probability density p. Entries that belong to grid point k carry its tilt, those of k + m carry the
/// tilt of k + m.
struct Cell {
  std::int64_t place = 0;  // k
  std::int64_t steps = 1;  // m
  double low = 0;   // p (e^-u - e^-w) / (1 - e^-w): the share of grid point k
  double high = 0;  // p (1 - e^-u) / (1 - e^-w): the share of grid point k + m
  // How far the true curve lies above its tangent inside the cell, at k and at k + m:
  double gap_low = 0;   // p (1 - e^-u) over what lies below the point of the tangent
  double gap_high = 0;  // p (e^(w-u) - 1) over what lies above it
};

/// 1 - exp(-u) for u >= 0; the losses here are mostly so small that a few terms do.
double rise_of(double u);

/// exp(u) - 1; a few terms where u is small.
double growth_of(double u);

/// The grid points around ascending, adjacent `cells` (one more than cells).
std::vector<std::int64_t> places_around(const std::vector<Cell>& cells);

/// Tilted masses on the grid points around ascending, adjacent `cells`. upper_masses interpolates the curve,
/// so it lies above the true one; lower_masses lies below it (docs/accounting.md, "Discretisation").
std::vector<double> upper_masses(const std::vector<Cell>& cells);
std::vector<double> lower_masses(const std::vector<Cell>& cells, double spacing, double tilt);

}  // namespace hushgrad
