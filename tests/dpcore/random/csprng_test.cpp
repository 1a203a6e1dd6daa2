#include "dpcore/random/csprng.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <set>
#include <thread>
#include <type_traits>
#include <vector>

#include "dpcore/random/hex.h"
#include "dpcore/random/insecure_seed.h"
#include "dpcore/random/process_identity.h"
#include "dpcore/random/statistics.h"

namespace hushgrad {
namespace {

using testing::chi_square_p;
using testing::kFalseAlarm;
using testing::to_hex;

static_assert(!std::is_copy_constructible_v<Csprng> && !std::is_move_constructible_v<Csprng>);
static_assert(!std::is_constructible_v<Csprng, std::uint64_t>, "no seed");

using Bytes = std::array<std::byte, 32>;

Bytes next(Csprng& rng) {
  Bytes bytes;
  rng.fill(bytes);
  return bytes;
}

// What `work` returns when it runs in a forked child.
template <typename Work>
Bytes in_child(Work&& work) {
  int ends[2];
  EXPECT_EQ(pipe(ends), 0);
  const pid_t child = fork();
  if (child == 0) {
    const Bytes bytes = work();
    const bool sent = write(ends[1], bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size());
    _exit(sent ? 0 : 1);
  }
  Bytes bytes{};
  EXPECT_EQ(read(ends[0], bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  int status = -1;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  close(ends[0]);
  close(ends[1]);
  return bytes;
}

TEST(Csprng, ForkedChildrenNeverContinueTheParentsStream) {
  Csprng rng;
  rng.next_u64();  // leaves a thousand bytes in the buffer, the same in every child
  std::set<std::string> seen;
  for (int i = 0; i < 8; ++i) seen.insert(to_hex(in_child([&] { return next(rng); })));
  seen.insert(to_hex(in_child([&] { return in_child([&] { return next(rng); }); })));  // grandchild
  seen.insert(to_hex(next(rng)));
  EXPECT_EQ(seen.size(), 10u);
}

TEST(Csprng, WithoutTheProcessCheckTheForkTestWouldFail) {
  // The insecure stream has no process check: it shows what the test above looks for.
  InsecureSeed seed(1);
  seed.stream().next_u64();
  const Bytes child = in_child([&] { return next(seed.stream()); });
  EXPECT_EQ(to_hex(child), to_hex(next(seed.stream())));
}

TEST(ProcessIdentity, StaysWithinAProcessAndChangesOverFork) {
  const std::uint64_t mine = process_identity();
  std::uint64_t in_thread = 0;
  std::thread([&] { in_thread = process_identity(); }).join();
  EXPECT_EQ(mine, in_thread);
  const Bytes child = in_child([] {
    Bytes bytes{};
    const std::uint64_t first = process_identity(), second = process_identity();
    bytes[0] = static_cast<std::byte>(first == second);
    for (std::size_t i = 0; i < 8; ++i) bytes[8 + i] = static_cast<std::byte>(first >> (8 * i));
    return bytes;
  });
  EXPECT_EQ(std::to_integer<int>(child[0]), 1);
  std::uint64_t theirs = 0;
  for (std::size_t i = 0; i < 8; ++i) theirs |= std::to_integer<std::uint64_t>(child[8 + i]) << (8 * i);
  EXPECT_NE(mine, theirs);
  // Even if the kernel gives the same process id again, the upper half tells the two apart (Linux 4.14).
  EXPECT_NE(mine >> 32, theirs >> 32);
}

// 2^20 blocks of two generators. By chance: 2^40 / 2^129.
TEST(Csprng, NoBlockRepeats) {
  using Block = std::array<std::uint64_t, 2>;
  std::vector<Block> blocks(std::size_t{1} << 20);
  const std::span<std::byte> bytes = std::as_writable_bytes(std::span(blocks));
  Csprng one, two;
  one.fill(bytes.first(bytes.size() / 2));
  for (std::size_t at = bytes.size() / 2; at < bytes.size(); at += 64) two.fill(bytes.subspan(at, 64));
  std::sort(blocks.begin(), blocks.end());
  EXPECT_EQ(std::adjacent_find(blocks.begin(), blocks.end()), blocks.end());
}

TEST(Csprng, BytesAreUniform) {
  Csprng rng;
  std::vector<std::uint8_t> bytes(std::size_t{1} << 24);
  rng.fill(std::as_writable_bytes(std::span(bytes)));
  std::vector<std::int64_t> singles(256), pairs(65536);
  for (std::size_t i = 0; i < bytes.size(); ++i) ++singles[bytes[i]];
  for (std::size_t i = 0; i + 1 < bytes.size(); i += 2) ++pairs[bytes[i] * 256u + bytes[i + 1]];
  EXPECT_GT(chi_square_p(singles, std::vector<long double>(256, 0x1p-8L), 1 << 24), kFalseAlarm);
  EXPECT_GT(chi_square_p(pairs, std::vector<long double>(65536, 0x1p-16L), 1 << 23), kFalseAlarm);
}

// Small requests go through the buffer: its seams must not show. Each of 64 bits is fair, false alarm 64 *
// 1e-6.
TEST(Csprng, WordsHaveFairBits) {
  Csprng rng;
  constexpr int words = 100'000;
  std::array<int, 64> ones{};
  for (int i = 0; i < words; ++i) {
    const std::uint64_t word = rng.next_u64();
    for (std::size_t bit = 0; bit < 64; ++bit) ones[bit] += static_cast<int>((word >> bit) & 1);
  }
  for (int count : ones)
    EXPECT_LT(std::abs(count - words / 2) / std::sqrt(words / 4.0), testing::kNormalLimit);
}

TEST(Csprng, EverySizeIsFilledAndNothingBeyond) {
  Csprng rng;
  for (std::size_t size : {0u, 1u, 7u, 1023u, 1024u, 1025u, 65536u, 65537u, 200'000u}) {
    std::vector<std::byte> out(size + 8);
    rng.fill(std::span(out).first(size));
    EXPECT_TRUE(std::all_of(out.begin() + static_cast<std::ptrdiff_t>(size), out.end(),
                            [](std::byte b) { return b == std::byte{0}; }));
    // 32 zero bytes at the end of a random run: 2^-256.
    if (size >= 32) {
      EXPECT_FALSE(std::all_of(out.begin() + static_cast<std::ptrdiff_t>(size) - 32,
                               out.begin() + static_cast<std::ptrdiff_t>(size),
                               [](std::byte b) { return b == std::byte{0}; }));
    }
  }
}

TEST(Csprng, TwoGeneratorsDifferAndAreNotInsecure) {
  Csprng one, two;
  EXPECT_NE(next(one), next(two));
  EXPECT_FALSE(one.insecure());
}

}  // namespace
}  // namespace hushgrad
