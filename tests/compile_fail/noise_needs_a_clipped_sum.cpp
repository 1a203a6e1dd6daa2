// Raw memory is not a clipped sum: noise on it would claim a sensitivity that nobody enforced.
#include "dpcore/clipping/clipping_pass.h"
#include "dpcore/noise/lattice_gaussian.h"

hushgrad::NoisySum release(std::vector<hushgrad::SumPart> parts, hushgrad::Csprng& rng) {
#ifdef MUST_NOT_COMPILE
  return hushgrad::Noise::add(std::move(parts), 1.0, 1.0, rng);
#else
  return hushgrad::Noise::add(hushgrad::ClippingPass(1.0).finish(std::move(parts)), 1.0, 1.0, rng);
#endif
}
