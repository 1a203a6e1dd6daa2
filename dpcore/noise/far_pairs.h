// Beyond the reach of a pair's own random words.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "dpcore/error.h"
#include "dpcore/noise/gaussian_kernel.h"

namespace hushgrad::internal {

/// Whether the radius variable that begins with this word is below 2^-48.
constexpr bool is_far(std::uint64_t high) { return high >> 16 == 0; }

/// A radius variable below 2^-48 is 2^-48 times a new one, so that every one is known to 2^-45 of itself, however small. more_words()
/// gives a fresh random word. Down to 2^-960; a source that gives zeros for so long is none.
template <typename Words>
double small_radius_variable(Words&& more_words) {
  double unit = 0x1p-48;
  for (int tries = 0; tries < 19; ++tries, unit *= 0x1p-48) {
    const std::uint64_t high = more_words(), low = more_words();
    if (!is_far(high)) return unit * radius_variable(high, low);
  }
  throw InvalidState("[noise] Expected random words, received zeros only. Check the system's source of randomness.");
}

/// Makes the pairs whose radius variable is below 2^-48 anew, with as many digits as they need; words and noise as in
/// GaussianKernel::noise. Without it the noise would be coarse beyond 8 standard deviations and end at 11.3, and what an adversary
/// may conclude there would have to be charged (docs/proofs/lattice_gaussian.md, section 4).
template <typename Words>
void redraw_far_pairs(std::span<const std::uint64_t> words, double sigma_units, std::span<double> noise, Words&& more_words) {
  const std::size_t pairs = words.size() / kWordsPerPair;
  int far = 0;
  for (std::size_t i = 0; i < pairs; ++i) far |= is_far(words[i]) ? 1 : 0;
  if (far == 0) return;
  for (std::size_t i = 0; i < pairs; ++i) {
    if (!is_far(words[i])) continue;
    noise_of_radius(small_radius_variable(more_words), words[pairs + i], words[2 * pairs + i], sigma_units, &noise[i], &noise[pairs + i]);
  }
}

}  // namespace hushgrad::internal
