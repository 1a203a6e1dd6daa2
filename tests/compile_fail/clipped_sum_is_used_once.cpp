// Two noisy copies of one sum are two releases; the second must not come for free.
#include "dpcore/noise/lattice_gaussian.h"

hushgrad::NoisySum release(hushgrad::ClippedSum sum, hushgrad::Csprng& rng) {
#ifdef MUST_NOT_COMPILE
  hushgrad::ClippedSum copy = sum;
  return hushgrad::Noise::add(std::move(copy), 1.0, 1.0, rng);
#else
  return hushgrad::Noise::add(std::move(sum), 1.0, 1.0, rng);
#endif
}
