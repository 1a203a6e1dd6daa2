// Clipping whose sensitivity is proven, not measured: gradients in whole grid steps, norms checked and sums taken in integers.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "dpcore/clipping/clipped_sum.h"

namespace hushgrad {

/// The public grid of a certified sum: fixed by max_grad_norm alone.
struct CertifiedGrid {
  double grid;               ///< spacing, the largest power of two <= max_grad_norm * 2^-24
  std::int64_t sensitivity;  ///< l2 sensitivity in grid steps, floor(max_grad_norm / grid), in [2^24, 2^25)

  /// max_grad_norm in [2^-64, 2^64], else InvalidArgument.
  explicit CertifiedGrid(double max_grad_norm);
};

/// A sum of integer vectors, one a sample, each of l2 norm <= grid().sensitivity exactly; coordinates modulo 2^64.
/// Guarantee: adding or removing one sample changes the vector before the modulus by at most that norm, whatever the sample's
/// gradient was. Must not be released: it is data. Move-only, used up by Noise::add().
class CertifiedSum {
 public:
  CertifiedSum(CertifiedSum&&) noexcept = default;
  CertifiedSum& operator=(CertifiedSum&&) noexcept = default;
  CertifiedSum(const CertifiedSum&) = delete;
  CertifiedSum& operator=(const CertifiedSum&) = delete;

  const CertifiedGrid& grid() const { return grid_; }
  Adjacency adjacency() const { return Adjacency::add_or_remove_one; }
  Sensitivity sensitivity() const { return Sensitivity::certified; }

 private:
  friend class CertifiedPass;
  friend class Noise;
  CertifiedSum(std::vector<std::vector<std::uint64_t>> parts, CertifiedGrid grid) : parts_(std::move(parts)), grid_(grid) {}

  std::vector<std::vector<std::uint64_t>> parts_;
  CertifiedGrid grid_;
};

/// One logical batch: takes the gradients sample by sample and gives the only CertifiedSum there is.
///
/// What is added for a sample is a function of its gradient and max_grad_norm C alone:
///
///   | gradient                         | added                                                              |
///   | -------------------------------- | ------------------------------------------------------------------ |
///   | norm <= C                        | every coordinate in grid steps, rounded towards zero               |
///   | norm > C                         | the same of the gradient scaled to norm C, or a little less        |
///   | any coordinate NaN or infinite   | nothing                                                            |
///
/// The integers are checked after rounding, so no floating-point result is trusted (docs/proofs/certified_sensitivity.md).
/// The caller's part: gradient must depend on one sample only, to the last bit; it is computed from that sample alone.
/// Memory: 8 bytes a coordinate for the sum, 4 for the sample. Not thread-safe.
class CertifiedPass {
 public:
  using Gradient = std::vector<std::span<const float>>;  // of one sample; one span a part

  /// part_sizes: number of coordinates of each part. Errors: InvalidArgument, see CertifiedGrid.
  CertifiedPass(double max_grad_norm, std::vector<std::size_t> part_sizes);
  ~CertifiedPass();
  CertifiedPass(const CertifiedPass&) = delete;
  CertifiedPass& operator=(const CertifiedPass&) = delete;

  /// Adds one sample. Errors: InvalidArgument if the parts differ from part_sizes; nothing is added then.
  void add(const Gradient& gradient);
  /// Forgets what was added, and begins anew.
  void discard();
  /// The sum; the pass begins anew.
  CertifiedSum finish();

  const CertifiedGrid& grid() const { return grid_; }

 private:
  CertifiedGrid grid_;
  double max_grad_norm_;
  std::vector<std::size_t> part_sizes_;
  std::vector<std::vector<std::uint64_t>> sums_;
  std::vector<std::int32_t> steps_;  // of the current sample, all parts
};

namespace internal {
/// What CertifiedPass adds for a sample, all parts one after the other: `steps` is as long. False if nothing is added.
bool certified_steps(const CertifiedPass::Gradient& gradient, double max_grad_norm, const CertifiedGrid& grid,
                     std::span<std::int32_t> steps);
}  // namespace internal
}  // namespace hushgrad
