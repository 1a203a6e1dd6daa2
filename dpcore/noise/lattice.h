// The public grid that sums and noise live on.
#pragma once

#include <cstdint>

namespace hushgrad {

/// What one noise addition does, fixed before any data is seen. Both in the units of the sum.
struct Lattice {
  double grid;          // spacing, a power of two
  double noise_stddev;  // of the continuous Gaussian before rounding to the grid
};

/// Chooses grid and noise from public numbers only. For a sum with sensitivity C = l2_sensitivity over d =
/// dimension coordinates:
///
///   grid          the largest power of two with sqrt(d) * grid <= 2^-14 * C and grid <= 2^-10 *
///   noise_multiplier * C noise_stddev  >= noise_multiplier * (C + sqrt(d) * grid), rounded up
///
/// Rounding two neighbouring sums to the grid can move them apart by sqrt(d) * grid more (half a step for
/// each coordinate of either); the noise pays for it, so the release is exactly a Gaussian event with
/// noise_multiplier, at 0.006 % more noise (docs/proofs/lattice_gaussian.md).
///
/// noise_multiplier: 0, or in [2^-32, 2^32]. 0 gives noise_stddev 0, which protects nothing.
/// l2_sensitivity: in [2^-64, 2^64]. dimension: up to 2^48; 0 is treated as 1.
/// Errors: InvalidArgument outside these ranges (NaN and inf included), and if noise_stddev would pass 2^46
/// grid steps, where double precision no longer resolves them (noise_multiplier > 65536 for a thousand
/// million coordinates).
Lattice choose_lattice(double noise_multiplier, double l2_sensitivity, std::uint64_t dimension);

}  // namespace hushgrad
