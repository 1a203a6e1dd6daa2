// Before noise a sum is data: what is in it cannot be reached, its public facts can.
#include "dpcore/clipping/clipped_sum.h"

double look(const hushgrad::ClippedSum& sum) {
#ifdef MUST_NOT_COMPILE
  return sum.parts_[0][0];
#else
  return sum.l2_sensitivity();
#endif
}
