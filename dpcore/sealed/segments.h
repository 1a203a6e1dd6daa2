// Work on the segments of a sealed payload, on several threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>

#include <omp.h>
#include <openssl/crypto.h>

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
/// the first exception wins. Memory: 2 MiB a thread, whatever the length.
template <typename Work>
void for_each_segment(std::uint64_t first, std::uint64_t last, int threads, const Work& work) {
  constexpr std::uint64_t kSegmentsPerThread = 8;  // below this, waking a thread costs more than it brings
  constexpr int kMaxThreads = 16;                  // beyond this the disk is the limit
  const int most = std::clamp(threads > 0 ? threads : omp_get_max_threads(), 1, kMaxThreads);
  const auto wanted = std::clamp<std::uint64_t>((last - first) / kSegmentsPerThread, 1, static_cast<std::uint64_t>(most));
  std::atomic<std::uint64_t> next{first};
  std::atomic<bool> failed{false};
  std::exception_ptr error;
#pragma omp parallel num_threads(static_cast<int>(wanted))
  {
    try {
      SegmentScratch scratch;
      for (std::uint64_t i = next++; i < last && !failed; i = next++) work(i, scratch);
    } catch (...) {
      if (!failed.exchange(true)) error = std::current_exception();
    }
    if (omp_get_thread_num() != 0) {
      OPENSSL_thread_stop();  // or each pool thread keeps its own random generator for good
    }
  }
  if (error) std::rethrow_exception(error);
}

}  // namespace hushgrad
