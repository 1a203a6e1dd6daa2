// The caller has to give the sum away in so many words.
#include "dpcore/noise/lattice_gaussian.h"

hushgrad::NoisySum release(hushgrad::ClippedSum& sum, hushgrad::Csprng& rng) {
#ifdef MUST_NOT_COMPILE
  return hushgrad::Noise::add(sum, 1.0, 1.0, rng);
#else
  return hushgrad::Noise::add(std::move(sum), 1.0, 1.0, rng);
#endif
}
