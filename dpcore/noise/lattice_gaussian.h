// The Gaussian mechanism on a lattice: the only way from a ClippedSum to a NoisySum.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "dpcore/clipping/certified_pass.h"
#include "dpcore/clipping/clipped_sum.h"
#include "dpcore/noise/lattice.h"
#include "dpcore/random/csprng.h"

namespace hushgrad {

/// How the integers are drawn.
enum class NoiseSampler {
  fast,   ///< Box and Muller in double precision, with dither: vectorised, constant time, within the proof's section 4
  exact,  ///< the rounded Gaussian itself, in integers (exact_gaussian.h): nothing to bound, tens of times as slow
};

/// Guarantee: with L = choose_lattice(noise_multiplier, sum.l2_sensitivity(), sum.dimension()) the result is
/// a function of the sum only through round(sum / L.grid) + N, where N are independent integers, each a
/// rounded Gaussian of standard deviation L.noise_stddev / L.grid (NoiseSampler::fast adds a small independent dither). It is
/// covered by the Gaussian mechanism with noise_multiplier, under the sum's own adjacency and to the
/// precision of the sum's own sensitivity claim. No bit of the output depends on data below the grid, so the
/// attacks on floating-point noise (Mironov 2012; Haney et al. 2022; Jin et al. 2022) find nothing. Proof,
/// precision of the sampler, and what is not proven: docs/proofs/lattice_gaussian.md.
class Noise {
 public:
  /// Adds noise in place, multiplies by `scale` and rounds to float32: out = float32((round(sum / grid) + N)
  /// * grid * scale).
  ///
  /// scale: public, finite, > 0; usually 1 / expected_batch_size, never 1 / the actual batch size.
  /// noise_multiplier 0: nothing is rounded or added, only scaled; no privacy, the caller charges it as such.
  /// A sum of dimension 0 gives an empty NoisySum. Running time does not depend on the values; with NoiseSampler::exact it
  /// depends on the noise.
  ///
  /// Randomness: one fresh 256-bit key from `rng` for each call, after mixing in entropy from the operating
  /// system; tiles of coordinates use disjoint counter ranges under that key, so the result does not depend
  /// on the number of threads (OpenMP decides it). Memory: a few tens of kilobytes a thread.
  ///
  /// Errors: InvalidArgument (see choose_lattice; scale; a noise that leaves float32), PrivacyViolation if
  /// the sum or a result is not finite. After an error every coordinate of the sum is zero: nothing un-noised
  /// is left behind.
  static NoisySum add(ClippedSum&& sum, double noise_multiplier, double scale, Csprng& rng,
                      NoiseSampler sampler = NoiseSampler::fast);

  /// The same for a sum in grid steps, without any rounding before the noise: out = float32(((sum + N) mod 2^64) * grid *
  /// scale), N exact rounded Gaussians of deviation noise_multiplier * sum.grid().sensitivity, rounded up. The NoisySum views
  /// `out`: one part for each part of the sum, of its size. Guarantee: exactly a Gaussian event with noise_multiplier, with a
  /// certified sensitivity (docs/proofs/certified_sensitivity.md). noise_multiplier 0: nothing is added.
  /// Errors: InvalidArgument for parts that do not fit, noise_multiplier outside 0 or [2^-32, 2^21], scale as above.
  static NoisySum add(CertifiedSum&& sum, double noise_multiplier, double scale, Csprng& rng, std::vector<SumPart> out);
};

namespace internal {

/// Noise::add on bare memory, without the types that prove the sum was clipped. For Noise::add and for
/// statistics on the noise in tests; makes no NoisySum.
void add_lattice_noise(std::span<const SumPart> parts, double l2_sensitivity, double noise_multiplier,
                       double scale, Csprng& rng, NoiseSampler sampler = NoiseSampler::fast);

/// Fills `out` with independent integers, each the noise of one coordinate. For statistics.
void integer_noise(std::span<std::int64_t> out, double sigma_units, Csprng& rng,
                   NoiseSampler sampler = NoiseSampler::fast);

}  // namespace internal
}  // namespace hushgrad
