#include "dpcore/random/process_identity.h"

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <new>

namespace hushgrad {
namespace {

using Generation = std::atomic<std::uint64_t>;

std::atomic<std::uint64_t> generations{1};  // inherited over fork, so a child's next one is new to its line

// Null where the kernel has no such page. Lives as long as the process.
Generation* make_wiped_page() {
#if defined(MADV_WIPEONFORK)
  const auto size = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  void* page = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return nullptr;
  if (madvise(page, size, MADV_WIPEONFORK) == 0) return new (page) Generation(1);
  munmap(page, size);
#endif
  return nullptr;
}

std::uint64_t generation() {
  static Generation* const page = make_wiped_page();
  if (page == nullptr) return 0;
  std::uint64_t current = page->load();
  if (current != 0) return current;
  // Zero: this is a child, asking for the first time. If two threads ask at once, the first one's number
  // stays.
  const std::uint64_t fresh = generations.fetch_add(1) + 1;
  return page->compare_exchange_strong(current, fresh) ? fresh : current;
}

}  // namespace

std::uint64_t process_identity() { return (generation() << 32) | static_cast<std::uint32_t>(getpid()); }

}  // namespace hushgrad
