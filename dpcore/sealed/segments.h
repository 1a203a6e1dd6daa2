// Work on the segments of a sealed payload, on several threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <system_error>
#include <thread>
#include <vector>

#include <omp.h>

#include "dpcore/keys/secret_bytes.h"
#include "dpcore/sealed/container_format.h"

namespace hushgrad {

/// Called with how many bytes are done and how many there are, one call at a time, from any thread. It may throw to stop.
using Progress = std::function<void(std::uint64_t done, std::uint64_t total)>;

/// Room for one segment, in clear and encrypted. Wiped.
struct SegmentScratch {
  SecretBytes plaintext{ContainerFormat::kRoom};
  SecretBytes segment{ContainerFormat::kSegmentBytes};
};

/// Calls work(position, scratch) for positions [first, last) on at most `threads` threads (0: as many as OpenMP gives);
/// the first exception wins. Threads of its own and not OpenMP's pool, which a process that was forked does not have: its first
/// parallel region would wait for ever. Memory: 2 MiB a thread, whatever the length.
template <typename Work>
void for_each_segment(std::uint64_t first, std::uint64_t last, int threads, const Work& work) {
  constexpr std::uint64_t kSegmentsPerThread = 8;  // below this, waking a thread costs more than it brings
  constexpr int kMaxThreads = 16;                  // beyond this the disk is the limit
  const int most = std::clamp(threads > 0 ? threads : omp_get_max_threads(), 1, kMaxThreads);
  const auto wanted = std::clamp<std::uint64_t>((last - first) / kSegmentsPerThread, 1, static_cast<std::uint64_t>(most));
  std::atomic<std::uint64_t> next{first};
  std::atomic<bool> failed{false};
  std::exception_ptr error;
  const auto share = [&] {
    try {
      SegmentScratch scratch;
      for (std::uint64_t i = next++; i < last && !failed; i = next++) work(i, scratch);
    } catch (...) {
      if (!failed.exchange(true)) error = std::current_exception();
    }
  };
  {
    std::vector<std::jthread> others;
    try {
      while (others.size() + 1 < wanted) others.emplace_back(share);
    } catch (const std::system_error&) {  // no more threads to be had: those that are here do it
    }
    share();
  }
  if (error) std::rethrow_exception(error);
}

}  // namespace hushgrad
