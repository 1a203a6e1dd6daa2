// Only noise makes a NoisySum.
#include "dpcore/noise/lattice_gaussian.h"

hushgrad::NoisySum release(hushgrad::ClippedSum sum, std::vector<hushgrad::SumPart> parts,
                           hushgrad::Csprng& rng) {
#ifdef MUST_NOT_COMPILE
  (void)sum, (void)rng;
  return hushgrad::NoisySum(std::move(parts));
#else
  (void)parts;
  return hushgrad::Noise::add(std::move(sum), 1.0, 1.0, rng);
#endif
}
