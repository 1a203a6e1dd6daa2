// For plain loops, which the compiler vectorises itself: one copy for each vector unit, chosen when the library is loaded.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define HUSHGRAD_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define HUSHGRAD_CLONES
#endif
