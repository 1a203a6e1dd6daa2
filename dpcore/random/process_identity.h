// Tells a process from the ones it was forked from, so that none of them continues another's random stream.
#pragma once

#include <cstdint>

namespace hushgrad {

/// A number that stays the same within one process and differs between a process and its fork()ed
/// descendants, also when the kernel reuses a process id. Two witnesses: the process id, and a page that the
/// kernel empties in every child (MADV_WIPEONFORK, Linux 4.14); where the page is not to be had, the process
/// id alone. Costs one system call. Thread-safe.
std::uint64_t process_identity();

}  // namespace hushgrad
