#include "dpcore/random/shared_stream.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <vector>

#include "dpcore/error.h"
#include "dpcore/noise/lattice_gaussian.h"

namespace hushgrad {
namespace {

std::vector<std::uint64_t> some(Csprng& rng, int count) {
  std::vector<std::uint64_t> values;
  for (int i = 0; i < count; ++i) values.push_back(rng.next_u64());
  return values;
}

TEST(SharedStream, IsTheSameForTheSameKeyOnly) {
  Csprng rng;
  const SharedKey key(rng), other(rng);
  SharedStream first(key), second(SharedKey::received(key.bytes())), third(other);
  // Past the mebibyte after which a stream of one process takes fresh entropy.
  const auto drawn = some(first.stream(), 200'000);
  EXPECT_EQ(drawn, some(second.stream(), 200'000));
  EXPECT_NE(drawn, some(third.stream(), 200'000));
  EXPECT_FALSE(first.stream().insecure());
}

TEST(SharedStream, IsNeverNoise) {
  Csprng rng;
  SharedStream shared((SharedKey(rng)));
  std::vector<float> sum(8, 1.0f);
  const std::array<SumPart, 1> parts{SumPart(sum)};
  EXPECT_THROW(internal::add_lattice_noise(parts, 1.0, 1.0, 1.0, shared.stream()), PrivacyViolation);
  EXPECT_EQ(sum, std::vector<float>(8, 0.0f));  // nothing un-noised is left behind
  EXPECT_THROW(shared.stream().reseed(), PrivacyViolation);
}

TEST(SharedStream, StopsInAForkedChild) {
  Csprng rng;
  SharedStream shared((SharedKey(rng)));
  (void)shared.stream().next_u64();
  const pid_t child = fork();
  if (child == 0) {
    try {
      (void)shared.stream().next_u64();
    } catch (const InvalidState&) {
      _exit(0);
    }
    _exit(1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
}

TEST(SharedKey, RefusesOtherLengths) {
  const std::array<std::byte, 47> short_one{};
  EXPECT_THROW(SharedKey::received(short_one), InvalidArgument);
}

}  // namespace
}  // namespace hushgrad
