// The cells between grid points of privacy loss, and how what they hold is moved onto the points: up or down.
#pragma once

#include <vector>

namespace hushgrad {

/// What one grid cell [k h, (k + 1) h] holds, as integrals over the true loss l = k h + u with probability density p.
/// Entries that belong to grid point k carry its tilt, those of k + 1 carry the tilt of k + 1.
struct Cell {
  double low = 0;   // p (e^-u - e^-h) / (1 - e^-h): the share of grid point k
  double high = 0;  // p (1 - e^-u) / (1 - e^-h): the share of grid point k + 1
  // How far the true curve lies above its tangent inside the cell, at k and at k + 1:
  double gap_low = 0;   // p (1 - e^-u) over what lies below the point of the tangent
  double gap_high = 0;  // p (e^(h-u) - 1) over what lies above it
};

/// 1 - exp(-u) for u >= 0; the losses here are mostly so small that a few terms do.
double rise_of(double u);

/// Tilted masses on the grid points around ascending `cells` (one more than cells). upper_masses interpolates the curve,
/// so it lies above the true one; lower_masses lies below it (docs/accounting.md, "Discretisation").
std::vector<double> upper_masses(const std::vector<Cell>& cells);
std::vector<double> lower_masses(const std::vector<Cell>& cells, double spacing, double tilt);

}  // namespace hushgrad
