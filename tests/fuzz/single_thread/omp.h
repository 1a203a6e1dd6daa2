// OpenMP of one thread, for the fuzz targets: clang cannot read gcc's omp.h, and a run must be the same each time.
#pragma once

inline int omp_get_max_threads() { return 1; }
inline int omp_get_thread_num() { return 0; }
