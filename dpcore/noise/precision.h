// How far the fast noise sampler is from the law it stands for.
#pragma once

#include <cstddef>
#include <span>

namespace hushgrad {

/// Outside an event of probability `failure`, the Renyi divergences of `order` between the real law of a release and the ideal
/// one are at most `divergence`, in both directions and given everything before. All zero: the release is ideal.
struct NoisePrecision {
  double order = 0, divergence = 0, failure = 0;

  bool exact() const { return divergence == 0 && failure == 0; }
};

/// Of one Noise::add with NoiseSampler::fast on parts of these sizes, whatever the sum and its sensitivity
/// (docs/proofs/lattice_gaussian.md, section 4). The order suits ten thousand steps; every order is right. All zero for
/// noise_multiplier 0, which draws no noise, and for no coordinates. Divergence and failure of several calls add up.
NoisePrecision fast_noise_precision(double noise_multiplier, std::span<const std::size_t> part_sizes);

}  // namespace hushgrad
