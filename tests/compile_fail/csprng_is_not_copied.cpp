// A copy would repeat the stream.
#include "dpcore/random/csprng.h"

std::uint64_t draw(hushgrad::Csprng& rng) {
#ifdef MUST_NOT_COMPILE
  hushgrad::Csprng used = rng;
#else
  hushgrad::Csprng& used = rng;
#endif
  return used.next_u64();
}
