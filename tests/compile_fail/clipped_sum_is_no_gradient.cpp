// Who takes gradients takes a NoisySum, and clipping alone does not make one.
#include "dpcore/noise/lattice_gaussian.h"

void to_gradient(const hushgrad::NoisySum& sum);

void step(hushgrad::ClippedSum sum, hushgrad::Csprng& rng) {
#ifdef MUST_NOT_COMPILE
  (void)rng;
  to_gradient(sum);
#else
  to_gradient(hushgrad::Noise::add(std::move(sum), 1.0, 1.0, rng));
#endif
}
