// The types that carry the guarantee from clipping to the optimizer:
//
//   clipping -> ClippedSum -> add_noise -> NoisySum -> gradient
//
// Only clipping can make a ClippedSum, noise takes only a ClippedSum, and only a NoisySum may become a gradient, so a
// program that skips a step does not compile (tests/compile_fail/).
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace hushgrad {

/// Which data sets count as neighbours.
enum class Adjacency { add_or_remove_one, replace_one, zero_out };

/// Whether the sensitivity is proven down to the last bit or holds up to floating-point rounding of norms and sums.
enum class Sensitivity { empirical, certified };

/// One parameter's share of a sum. Views memory that the owner (a tensor) keeps alive. float32: [numel].
using SumPart = std::span<float>;

class ClippingPass;  // the only maker of ClippedSum
class NoisySum;

/// The sum over the batch of per-sample gradients, each clipped to l2 norm <= max_grad_norm over all parts together.
/// Guarantee: adding or removing one sample changes the sum by at most l2_sensitivity() in l2 norm.
/// Must not be released: it is data. Move-only, used up by add_noise().
class ClippedSum {
 public:
  ClippedSum(ClippedSum&&) noexcept = default;
  ClippedSum& operator=(ClippedSum&&) noexcept = default;
  ClippedSum(const ClippedSum&) = delete;
  ClippedSum& operator=(const ClippedSum&) = delete;

  double l2_sensitivity() const { return l2_sensitivity_; }
  Adjacency adjacency() const { return adjacency_; }
  Sensitivity sensitivity() const { return Sensitivity::empirical; }
  /// Number of coordinates over all parts.
  std::uint64_t dimension() const {
    std::uint64_t n = 0;
    for (const auto& part : parts_) n += part.size();
    return n;
  }

 private:
  friend class ClippingPass;
  friend class Noise;
  ClippedSum(std::vector<SumPart> parts, double l2_sensitivity, Adjacency adjacency)
      : parts_(std::move(parts)), l2_sensitivity_(l2_sensitivity), adjacency_(adjacency) {}

  std::vector<SumPart> parts_;
  double l2_sensitivity_;
  Adjacency adjacency_;
};

/// A clipped sum with calibrated noise on it: safe to release, and the only thing that may become a gradient.
/// It views the same memory as the ClippedSum it was made of.
class NoisySum {
 public:
  NoisySum(NoisySum&&) noexcept = default;
  NoisySum& operator=(NoisySum&&) noexcept = default;
  NoisySum(const NoisySum&) = delete;
  NoisySum& operator=(const NoisySum&) = delete;

  std::span<const SumPart> parts() const { return parts_; }

 private:
  friend class Noise;
  explicit NoisySum(std::vector<SumPart> parts) : parts_(std::move(parts)) {}
  std::vector<SumPart> parts_;
};

}  // namespace hushgrad
