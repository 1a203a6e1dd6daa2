// How kernels are compiled for the vector units that a processor may have.
#pragma once

#include "dpcore/vector_clones.h"  // HUSHGRAD_CLONES

#if defined(__x86_64__)
#define HUSHGRAD_AVX512 __attribute__((target("avx512f,avx2,fma,prefer-vector-width=512")))
#define HUSHGRAD_AVX2 __attribute__((target("avx2,fma")))
#endif

namespace hushgrad {

typedef float V16 __attribute__((vector_size(64)));
typedef float V8 __attribute__((vector_size(32)));
typedef float V4 __attribute__((vector_size(16)));

/// From memory of any alignment.
template <typename V>
[[gnu::always_inline]] inline void load(V& to, const float* from) { __builtin_memcpy(&to, from, sizeof(V)); }

}  // namespace hushgrad
