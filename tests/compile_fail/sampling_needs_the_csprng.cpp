// A generator of the standard library can be predicted from its output.
#include <random>

#include "dpcore/sampling/poisson.h"

std::vector<std::int64_t> batch(hushgrad::PoissonSampler& sampler) {
#ifdef MUST_NOT_COMPILE
  std::mt19937_64 rng;
#else
  hushgrad::Csprng rng;
#endif
  return sampler.draw(rng);
}
