#include "dpcore/random/os_entropy.h"

#include <dlfcn.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <vector>

#include "dpcore/error.h"
#include "dpcore/random/csprng.h"

namespace {

std::atomic<int> entropy_calls{0};
std::atomic<bool> entropy_fails{false};

}  // namespace

// Stands before the C library's getentropy for the whole test program: counts, and fails when told to.
extern "C" int getentropy(void* out, size_t size) noexcept {
  using Function = int (*)(void*, size_t);
  static const auto real = reinterpret_cast<Function>(dlsym(RTLD_NEXT, "getentropy"));
  ++entropy_calls;
  return entropy_fails ? -1 : real(out, size);
}

namespace hushgrad {
namespace {

TEST(OsEntropy, TwoDrawsDiffer) { EXPECT_NE(OsEntropy().bytes(), OsEntropy().bytes()); }

TEST(OsEntropy, RefusalIsAnErrorAndNeverWeakerOutput) {
  Csprng rng;
  entropy_fails = true;
  EXPECT_THROW(OsEntropy(), IoError);
  EXPECT_THROW(Csprng(), IoError);
  EXPECT_THROW(rng.reseed(), IoError);
  entropy_fails = false;
  EXPECT_NO_THROW(rng.next_u64());
}

TEST(Csprng, MixesInEntropyAfterEveryMebibyte) {
  Csprng rng;
  std::vector<std::byte> out(std::size_t{1} << 20);
  rng.fill(out);
  const int before = entropy_calls;
  for (int i = 0; i < 8; ++i) rng.fill(out);
  EXPECT_EQ(entropy_calls - before, 8);
}

TEST(Csprng, AFailedReseedStopsTheStream) {
  Csprng rng;
  std::vector<std::byte> out((std::size_t{1} << 20) + 4096);
  entropy_fails = true;
  EXPECT_THROW(rng.fill(out), IoError);
  EXPECT_THROW(rng.fill(out), IoError);
  entropy_fails = false;
}

}  // namespace
}  // namespace hushgrad
