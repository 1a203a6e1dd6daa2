// A repeatable stream does not pass for a secure one unless the caller says so at the place of use.
#include "dpcore/noise/lattice_gaussian.h"
#include "dpcore/random/insecure_seed.h"

hushgrad::NoisySum release(hushgrad::ClippedSum sum, hushgrad::InsecureSeed& seed) {
#ifdef MUST_NOT_COMPILE
  return hushgrad::Noise::add(std::move(sum), 1.0, 1.0, seed);
#else
  return hushgrad::Noise::add(std::move(sum), 1.0, 1.0, seed.stream());
#endif
}
