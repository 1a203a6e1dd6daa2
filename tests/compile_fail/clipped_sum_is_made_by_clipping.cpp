// Only a ClippingPass makes a ClippedSum.
#include "dpcore/clipping/clipping_pass.h"

hushgrad::ClippedSum wrap(std::vector<hushgrad::SumPart> parts) {
#ifdef MUST_NOT_COMPILE
  return hushgrad::ClippedSum(std::move(parts), 1.0, hushgrad::Adjacency::add_or_remove_one);
#else
  return hushgrad::ClippingPass(1.0).finish(std::move(parts));
#endif
}
