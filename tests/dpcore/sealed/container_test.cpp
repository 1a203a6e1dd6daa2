#include "dpcore/sealed/container.h"

#include <algorithm>
#include <random>
#include <utility>

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dpcore/error.h"
#include "dpcore/keys/kdf.h"
#include "dpcore/keys/seal_testing.h"

namespace hushgrad {
namespace {

using namespace seal_testing;

constexpr std::size_t kSegment = 1 << 20;
constexpr std::size_t kRoom = kSegment - 32;
const std::string kCore = R"({"what":"opaque to the container"})";
const std::size_t kHeader = 28 + kCore.size() + 16 + 40 + 48 + 74;

Bytes numbered(std::size_t size) {
  std::mt19937_64 generator(size);  // test data only
  Bytes out(size);
  for (std::byte& byte : out) byte = static_cast<std::byte>(generator());
  return out;
}

void seal(const std::string& path, const Bytes& payload, const Keyring& keyring,
          const std::string& core = kCore, IfExists if_exists = IfExists::replace) {
  const std::span<const std::byte> chunk(payload);
  write_container(path, "icu", core, std::span(&chunk, 1), keyring, if_exists);
}

Bytes open_all(const std::string& path, const Keyring& keyring) {
  const Container container(path, keyring);
  Bytes out(container.payload_bytes());
  container.read(0, out);
  return out;
}

class ContainerTest : public ::testing::Test {
 protected:
  ContainerTest() { keyring_.create_key("icu"); }

  // A sealed payload of `size` bytes, as bytes of the file.
  Bytes sealed(std::size_t size) {
    seal(folder_ / "a", numbered(size), keyring_);
    return read_file(folder_ / "a");
  }
  template <typename E>
  void expect_refused(const Bytes& file, std::string_view part) {
    write_file(folder_ / "x", file);
    expect_error<E>([&] { open_all(folder_ / "x", keyring_); }, part);
  }
  template <typename E>
  void expect_refused(const Bytes& file, const std::string& trace, std::string_view part) {
    SCOPED_TRACE(trace);
    expect_refused<E>(file, part);
  }

  TemporaryFolder folder_;
  Keyring keyring_ = Keyring::create(folder_ / "k");
};

TEST_F(ContainerTest, RoundTripsAroundEverySegmentBoundary) {
  for (std::size_t size :
       {std::size_t{1}, std::size_t{100}, kRoom - 1, kRoom, kRoom + 1, 2 * kRoom, 3 * kRoom + 7}) {
    const Bytes file = sealed(size);
    EXPECT_EQ(file.size(), kHeader + size + 32 * ((size + kRoom - 1) / kRoom));
    const Container container(folder_ / "a", keyring_);
    EXPECT_EQ(container.core(), kCore);
    EXPECT_EQ(container.dataset(), "icu");
    EXPECT_EQ(container.payload_bytes(), size);
    EXPECT_EQ(open_all(folder_ / "a", keyring_), numbered(size));
    EXPECT_NO_THROW(container.verify_all());
    EXPECT_EQ(Container::unauthenticated_core(folder_ / "a"), kCore);
  }
}

TEST_F(ContainerTest, JoinsChunksOfAnyLength) {
  const Bytes whole = numbered(2 * kRoom + 100);
  std::vector<std::span<const std::byte>> chunks;
  std::size_t at = 0;
  for (std::size_t size :
       {std::size_t{1}, std::size_t{0}, kRoom - 5, std::size_t{3}, std::size_t{0}, std::size_t{50}, kRoom}) {
    chunks.push_back(std::span(whole).subspan(at, size));
    at += size;
  }
  chunks.push_back(std::span(whole).subspan(at));
  chunks.push_back({});
  write_container(folder_ / "a", "icu", kCore, chunks, keyring_, IfExists::refuse);
  EXPECT_EQ(open_all(folder_ / "a", keyring_), whole);
}

TEST_F(ContainerTest, ReadsAnyRange) {
  const Bytes whole = numbered(3 * kRoom + 1000);
  seal(folder_ / "a", whole, keyring_);
  const Container container(folder_ / "a", keyring_);
  std::mt19937_64 generator(1);
  const std::vector<std::size_t> edges{0,         1,         kRoom - 1,        kRoom,       kRoom + 1,
                                       2 * kRoom, 3 * kRoom, whole.size() - 1, whole.size()};
  for (std::size_t from : edges) {
    for (std::size_t to : edges) {
      if (to < from) continue;
      Bytes out(to - from);
      container.read(from, out);
      EXPECT_TRUE(std::equal(out.begin(), out.end(), whole.begin() + from)) << from << ".." << to;
    }
  }
  Bytes one(1), all(whole.size() + 1);
  EXPECT_THROW(container.read(whole.size(), one), InvalidArgument);
  EXPECT_THROW(container.read(UINT64_MAX, one), InvalidArgument);
  EXPECT_THROW(container.read(0, all), InvalidArgument);
}

// Long enough for four threads; payloads below 16 segments are handled by one.
TEST_F(ContainerTest, ManySegmentsOnSeveralThreads) {
  const Bytes whole = numbered(32 * kRoom + 5);
  seal(folder_ / "a", whole, keyring_);
  EXPECT_TRUE(open_all(folder_ / "a", keyring_) == whole);
  Bytes file = read_file(folder_ / "a");
  file[kHeader + 20 * kSegment + 100] ^= std::byte{1};
  write_file(folder_ / "x", file);
  const Container container(folder_ / "x", keyring_);
  expect_error<SealError>([&] { container.verify_all(); }, "segment 20");
  Bytes out(whole.size(), std::byte{0xEE});
  expect_error<SealError>([&] { container.read(0, out); }, "segment 20");
  EXPECT_TRUE(out == Bytes(whole.size()));
}

TEST_F(ContainerTest, EveryFileHasItsOwnKeyAndIvs) {
  const Bytes a = sealed(100), b = sealed(100);
  const auto field = [](const Bytes& file, std::size_t from, std::size_t size) {
    return to_hex(std::span(file).subspan(from, size));
  };
  const std::size_t block = 28 + kCore.size();
  EXPECT_EQ(field(a, 0, block + 16), field(b, 0, block + 16));
  EXPECT_NE(field(a, block + 16, 40), field(b, block + 16, 40));    // wrapped key
  EXPECT_NE(field(a, block + 114, 32), field(b, block + 114, 32));  // FLOE IV
  EXPECT_NE(field(a, kHeader + 4, 12), field(b, kHeader + 4, 12));
}

// Only this error for each header field; every one of its bits is flipped.
TEST_F(ContainerTest, AnyFlippedHeaderBitIsRefused) {
  const Bytes good = sealed(100);
  const std::size_t block = 28 + kCore.size();
  for (std::size_t bit = 0; bit < 8 * kHeader; ++bit) {
    const std::size_t at = bit / 8;
    Bytes file = good;
    file[at] ^= std::byte{1} << (bit % 8);
    const std::string trace = message("bit ", bit);
    if (at < 8) {
      expect_refused<SealError>(file, trace, "Expected a sealed file");
    } else if (at < 16) {
      expect_refused<SealError>(file, trace, "unsupported version");
    } else if (at < 28) {
      expect_refused<SealError>(file, trace, "xpected");  // lengths: cap, truncated, trailing
    } else if (at < block) {
      expect_refused<SealError>(file, trace, "Expected the header that was sealed");
    } else if (at < block + 16) {
      expect_refused<KeyError>(file, trace, "none of that id");
    } else if (at < block + 56) {
      expect_refused<SealError>(file, trace, "Expected a data key");
    } else if (at < block + 104) {
      expect_refused<SealError>(file, trace, "Expected the header that was sealed");
    } else {
      expect_refused<SealError>(file, trace, "Expected a payload header");
    }
  }
}

TEST_F(ContainerTest, AnyFlippedBitOfASmallPayloadIsRefused) {
  const Bytes good = sealed(20);
  for (std::size_t bit = 8 * kHeader; bit < 8 * good.size(); ++bit) {
    Bytes file = good;
    file[bit / 8] ^= std::byte{1} << (bit % 8);
    expect_refused<SealError>(file, message("bit ", bit), "segment 0");
  }
}

TEST_F(ContainerTest, FlippedBitsInEverySegmentAreRefusedAndReleaseNothing) {
  const Bytes good = sealed(2 * kRoom + 500);
  const Bytes whole = numbered(2 * kRoom + 500);
  for (std::size_t segment = 0; segment < 3; ++segment) {
    const std::size_t start = kHeader + segment * kSegment, size = segment < 2 ? kSegment : 532;
    for (std::size_t at : {std::size_t{0}, std::size_t{3}, std::size_t{4}, std::size_t{15}, std::size_t{16},
                           size / 2, size - 17, size - 16, size - 1}) {
      Bytes file = good;
      file[start + at] ^= std::byte{0x10};
      write_file(folder_ / "x", file);
      const Container container(folder_ / "x", keyring_);
      const std::string name = message("segment ", segment);
      expect_error<SealError>([&] { container.verify_all(); }, name);
      Bytes out(whole.size(), std::byte{0xEE});
      expect_error<SealError>([&] { container.read(0, out); }, name);
      EXPECT_EQ(out, Bytes(whole.size())) << "zeroed on error";
      // A part of the bad segment, also after the good neighbours were read; and the neighbours stay
      // readable.
      Bytes part(10, std::byte{0xEE});
      for (std::size_t other = 0; other < 3; ++other) {
        if (other == segment) {
          EXPECT_THROW(container.read(other * kRoom + 1, part), SealError);
          EXPECT_EQ(part, Bytes(10));
          EXPECT_THROW(container.read(other * kRoom + 1, part), SealError)
              << "a failed segment is not cached";
        } else {
          container.read(other * kRoom + 1, part);
          EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + other * kRoom + 1));
        }
      }
    }
  }
}

TEST_F(ContainerTest, TruncationAtEveryBoundaryIsRefused) {
  const Bytes good = sealed(2 * kRoom + 500);
  const std::size_t block = 28 + kCore.size();
  std::vector<std::size_t> boundaries{0,           8,       10,          12,           16,
                                      24,          28,      block,       block + 16,   block + 56,
                                      block + 104, kHeader, kHeader + 4, kHeader + 16, good.size()};
  for (std::size_t s : {1u, 2u}) boundaries.push_back(kHeader + s * kSegment);
  for (std::size_t boundary : boundaries) {
    for (int off : {-1, 0, 1}) {
      const std::size_t size = boundary + static_cast<std::size_t>(off);
      if (size >= good.size()) continue;  // also -1 of 0, which wraps
      expect_refused<SealError>(Bytes(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(size)),
                                message("cut at ", size), "truncated");
    }
  }
}

TEST_F(ContainerTest, TrailingBytesAreRefused) {
  const Bytes good = sealed(kRoom + 500);
  for (std::size_t extra : {std::size_t{1}, std::size_t{16}, std::size_t{32}, kSegment}) {
    Bytes file = good;
    append(file, Bytes(extra));
    expect_refused<SealError>(file, "trailing bytes");
  }
  Bytes twice = good;  // a second final segment
  twice.insert(twice.end(), good.end() - 532, good.end());
  expect_refused<SealError>(twice, "trailing bytes");
}

TEST_F(ContainerTest, SegmentsCannotBeSwappedRepeatedOrDropped) {
  const Bytes good = sealed(4 * kRoom);  // four segments of one length
  const auto arrange = [&](std::initializer_list<std::size_t> order) {
    Bytes file(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(kHeader));
    for (std::size_t i : order) append(file, std::span(good).subspan(kHeader + i * kSegment, kSegment));
    return file;
  };
  EXPECT_EQ(arrange({0, 1, 2, 3}), good);
  for (std::size_t a = 0; a < 4; ++a) {
    for (std::size_t b = 0; b < 4; ++b) {
      if (a == b) continue;
      Bytes file = good;  // b over a, and swapped
      const auto at = [&](Bytes& f, std::size_t i) {
        return f.begin() + static_cast<std::ptrdiff_t>(kHeader + i * kSegment);
      };
      std::copy_n(at(const_cast<Bytes&>(good), b), kSegment, at(file, a));
      expect_refused<SealError>(file, message(b, " over ", a), "segment");
      std::copy_n(at(const_cast<Bytes&>(good), a), kSegment, at(file, b));
      expect_refused<SealError>(file, message(a, " and ", b, " swapped"), "segment");
    }
  }
  expect_refused<SealError>(arrange({1, 2, 3, 0}), "rotated", "segment");
  expect_refused<SealError>(arrange({0, 1, 3}), "dropped", "truncated");
  expect_refused<SealError>(arrange({0, 1, 2, 2, 3}), "repeated", "trailing");
}

TEST_F(ContainerTest, TwoFilesCannotBeSpliced) {
  const Bytes a = sealed(2 * kRoom), b = sealed(2 * kRoom);
  const std::size_t block = 28 + kCore.size();
  const auto splice = [](const Bytes& outer, const Bytes& inner, std::size_t from, std::size_t to) {
    Bytes file = outer;
    std::copy(inner.begin() + static_cast<std::ptrdiff_t>(from),
              inner.begin() + static_cast<std::ptrdiff_t>(to),
              file.begin() + static_cast<std::ptrdiff_t>(from));
    return file;
  };
  expect_refused<SealError>(splice(a, b, kHeader, kHeader + kSegment), "segment of b", "segment 0");
  expect_refused<SealError>(splice(a, b, kHeader, a.size()), "body of b", "segment");
  expect_refused<SealError>(splice(a, b, block + 104, kHeader), "FLOE header of b", "payload header");
  expect_refused<SealError>(splice(a, b, block + 104, a.size()), "payload of b", "payload header");
  expect_refused<SealError>(splice(a, b, block + 16, block + 56), "wrapped key of b",
                            "header that was sealed");
  expect_refused<SealError>(splice(a, b, block + 56, block + 104), "MAC of b", "header that was sealed");
  expect_refused<SealError>(splice(a, b, block, block + 104), "key block of b",
                            "payload header");  // same core
  const std::string other_core = std::string(kCore.size() - 1, ' ') + "1";
  seal(folder_ / "c", numbered(2 * kRoom), keyring_, other_core);
  const Bytes c = read_file(folder_ / "c");
  expect_refused<SealError>(splice(a, c, block, block + 104), "key block of c", "header that was sealed");
  expect_refused<SealError>(splice(a, c, 0, block), "core of c", "header that was sealed");
}

TEST_F(ContainerTest, OtherVersionsSuitesAndFlagsAreRefusedBeforeAnyKeyIsUsed) {
  const Bytes good = sealed(10);
  const Keyring empty = Keyring::create(folder_ / "empty");
  const auto refused = [&](std::size_t at, std::uint64_t value, int bytes) {
    std::vector<std::byte> field;
    append_big_endian(field, value, bytes);
    Bytes file = good;
    std::copy(field.begin(), field.end(), file.begin() + static_cast<std::ptrdiff_t>(at));
    write_file(folder_ / "x", file);
    // The keyring lacks the key: an error about the version shows that no key was asked for.
    expect_error<SealError>([&] { Container(folder_ / "x", empty); }, "unsupported version");
  };
  for (std::uint64_t value = 0; value < 65536; value += value < 300 ? 1 : 97) {
    if (value == 1) continue;
    refused(8, value, 2);
    refused(10, value, 2);
  }
  for (int bit = 0; bit < 32; ++bit) refused(12, std::uint64_t{1} << bit, 4);
  refused(12, 0xFFFFFFFF, 4);
}

TEST_F(ContainerTest, ExtremeLengthsAreRefused) {
  const Bytes good = sealed(10);
  for (std::uint64_t value :
       {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{9}, std::uint64_t{11}, std::uint64_t{1} << 31,
        (std::uint64_t{1} << 32) - 1, std::uint64_t{1} << 52, std::uint64_t{1} << 63, UINT64_MAX,
        UINT64_MAX - 31, UINT64_MAX / kSegment * kRoom}) {
    for (const auto& [at, bytes] : {std::pair{16, 8}, std::pair{24, 4}}) {
      std::vector<std::byte> field;
      append_big_endian(field, value, bytes);
      Bytes file = good;
      std::copy(field.begin(), field.end(), file.begin() + at);
      expect_refused<SealError>(file, message(value, " at ", at), "[open_sealed]");
    }
  }
}

TEST_F(ContainerTest, AskForTheRightKeyring) {
  seal(folder_ / "a", numbered(10), keyring_);
  Keyring other = Keyring::create(folder_ / "other");
  other.create_key("radiology");
  EXPECT_THROW(Container(folder_ / "a", other), KeyError);
  other.create_key("icu");  // same dataset, another key
  EXPECT_THROW(Container(folder_ / "a", other), KeyError);

  // The right id over other key bytes, as after a mistaken restore; version 1 is the simplest to write by hand.
  std::string text = "hushgrad keyring 1\n" + keyring_.list()[0].id + " 2026-01-31T12:00:00Z active " +
                     std::string(64, '7') + " icu\n";
  text += "sha384 " + to_hex(sha384(text_bytes(text))) + "\n";
  write_file(folder_ / "wrong", text_bytes(text));
  ::chmod((folder_ / "wrong").c_str(), 0600);
  expect_error<SealError>([&] { Container(folder_ / "a", Keyring::open(folder_ / "wrong")); }, "data key");

  keyring_.rotate_key("icu");
  EXPECT_EQ(open_all(folder_ / "a", keyring_), numbered(10)) << "a retired key still opens";
  EXPECT_THROW(write_container(folder_ / "b", "unknown", kCore, {}, keyring_, IfExists::refuse),
               InvalidArgument);
  const Bytes one(1);
  const std::span<const std::byte> chunk(one);
  EXPECT_THROW(
      write_container(folder_ / "b", "unknown", kCore, std::span(&chunk, 1), keyring_, IfExists::refuse),
      KeyError);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "b"));
}

TEST_F(ContainerTest, CapsItsCore) {
  EXPECT_NO_THROW(seal(folder_ / "a", numbered(1), keyring_, std::string(1 << 20, 'x')));
  EXPECT_EQ(Container(folder_ / "a", keyring_).core().size(), 1u << 20);
  EXPECT_THROW(seal(folder_ / "b", numbered(1), keyring_, std::string((1 << 20) + 1, 'x')), InvalidArgument);
}

TEST_F(ContainerTest, RefusesWhatIsNoRegularFile) {
  EXPECT_THROW(Container(folder_ / "missing", keyring_), IoError);
  ASSERT_EQ(::mkfifo((folder_ / "fifo").c_str(), 0600), 0);
  EXPECT_THROW(Container(folder_ / "fifo", keyring_), IoError);
  std::filesystem::create_directory(folder_ / "folder");
  EXPECT_THROW(Container(folder_ / "folder", keyring_), IoError);
  EXPECT_THROW(Container(std::string("a\0b", 3), keyring_), InvalidArgument);
}

TEST_F(ContainerTest, AFileCutWhileOpenIsRefused) {
  seal(folder_ / "a", numbered(3 * kRoom), keyring_);
  const Container container(folder_ / "a", keyring_);
  ASSERT_EQ(::truncate((folder_ / "a").c_str(), static_cast<off_t>(kHeader + 2 * kSegment)), 0);
  EXPECT_THROW(container.verify_all(), SealError);
  Bytes out(10);
  EXPECT_NO_THROW(container.read(0, out));
  EXPECT_THROW(container.read(2 * kRoom, out), SealError);
}

TEST_F(ContainerTest, KeepsReadingTheFileItOpened) {
  const Bytes first = numbered(100);
  seal(folder_ / "a", first, keyring_);
  const Container container(folder_ / "a", keyring_);
  seal(folder_ / "a", numbered(200), keyring_);
  Bytes out(100);
  container.read(0, out);
  EXPECT_EQ(out, first);
}

TEST_F(ContainerTest, AnyFailedCallKeepsTheOldFile) {
  const Bytes old = numbered(100), fresh = numbered(3 * kRoom);  // one thread
  const int calls = 1 + 1 + 3 + 1 + 1;                           // openat, header, segments, fsync, rename
  for (int call = 0; call < calls; ++call) {
    seal(folder_ / "a", old, keyring_);
    SyscallFault::current().arm(SyscallFault::Action::fail, call, ENOSPC);
    EXPECT_THROW(seal(folder_ / "a", fresh, keyring_), IoError) << call;
    SyscallFault::current().disarm();
    EXPECT_EQ(open_all(folder_ / "a", keyring_), old);
    EXPECT_EQ(folder_.names().size(), 3u);  // with the keyring and its log
  }
}

TEST_F(ContainerTest, KillBeforeAnyCallLeavesTheOldOrTheNewFile) {
  const Bytes old = numbered(100), fresh = numbered(3 * kRoom);  // one thread: a forked child has no others
  int kills = 0;
  for (int call = 0;; ++call) {
    seal(folder_ / "a", old, keyring_);
    const pid_t child = ::fork();
    if (child == 0) {
      SyscallFault::current().arm(SyscallFault::Action::kill, call);
      seal(folder_ / "a", fresh, keyring_);
      ::_exit(0);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    if (!WIFSIGNALED(status)) break;
    ++kills;
    EXPECT_EQ(open_all(folder_ / "a", keyring_), call < 7 ? old : fresh) << call;
  }
  EXPECT_EQ(kills, 8);
}

}  // namespace
}  // namespace hushgrad
