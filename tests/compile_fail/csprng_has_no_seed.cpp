// The secure generator takes no seed.
#include "dpcore/random/csprng.h"

std::uint64_t draw() {
#ifdef MUST_NOT_COMPILE
  hushgrad::Csprng rng(42);
#else
  hushgrad::Csprng rng;
#endif
  return rng.next_u64();
}
