#include "dpcore/sealed/container.h"

#include <algorithm>
#include <random>
#include <utility>

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dpcore/error.h"
#include "dpcore/keys/kdf.h"
#include "dpcore/keys/keyring.h"
#include "dpcore/keys/seal_testing.h"
#include "dpcore/sealed/container_writer.h"
#include "dpcore/sealed/rewrap.h"

namespace hushgrad {
namespace {

using namespace seal_testing;

constexpr std::size_t kSegment = 1 << 20;
constexpr std::size_t kRoom = kSegment - 32;
const std::string kCore = R"({"what":"opaque to the container"})";
const std::size_t kState = 28 + kCore.size(), kSlotA = kState + 1, kSlotB = kSlotA + 4096, kFloe = kSlotB + 4096;
const std::size_t kHeader = kFloe + 74;
// Fields of a slot that a local keyring's key fills.
constexpr std::size_t kKeyIdAt = 20, kWrappedAt = kKeyIdAt + 32, kWrappedEnd = kWrappedAt + 40, kMacAt = 4000;

std::size_t segments_of(std::size_t size) { return (size + kRoom - 1) / kRoom; }
std::size_t body_of(std::size_t size) { return size + 32 * segments_of(size); }
std::size_t tail_of(std::size_t size) { return 32 * segments_of(size) + 512; }

Bytes numbered(std::size_t size) {
  std::mt19937_64 generator(size);  // test data only
  Bytes out(size);
  for (std::byte& byte : out) byte = static_cast<std::byte>(generator());
  return out;
}

void seal(const std::string& path, const Bytes& payload, const Keyring& keyring,
          const std::string& core = kCore, IfExists if_exists = IfExists::replace) {
  ContainerWriter(path, "icu", core, MemorySource({payload}), keyring, {.if_exists = if_exists}).publish();
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
    EXPECT_EQ(file.size(), kHeader + body_of(size) + tail_of(size));
    const Container container(folder_ / "a", keyring_);
    EXPECT_EQ(container.core(), kCore);
    EXPECT_EQ(container.dataset(), "icu");
    EXPECT_EQ(container.payload_bytes(), size);
    EXPECT_EQ(open_all(folder_ / "a", keyring_), numbered(size));
    EXPECT_NO_THROW(container.verify_all());
    EXPECT_EQ(ContainerHeader::open(folder_ / "a").core, kCore);
    EXPECT_FALSE(container.is_signed());
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
  ContainerWriter(folder_ / "a", "icu", kCore, MemorySource(chunks), keyring_).publish();
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
  EXPECT_EQ(field(a, 0, kSlotA + kWrappedAt), field(b, 0, kSlotA + kWrappedAt));
  EXPECT_NE(field(a, kSlotA + kWrappedAt, 40), field(b, kSlotA + kWrappedAt, 40));
  EXPECT_NE(field(a, kFloe + 10, 32), field(b, kFloe + 10, 32));
  EXPECT_NE(field(a, kHeader + 4, 12), field(b, kHeader + 4, 12));
  EXPECT_NE(Container(folder_ / "a", keyring_).digest(), "");
}

// Only this error for each field; every one of its bits is flipped.
TEST_F(ContainerTest, AnyFlippedBitOfHeaderAndTrailerIsRefused) {
  const Bytes good = sealed(100);
  const std::size_t table = kHeader + body_of(100), trailer = table + 32;
  for (std::size_t bit = 0; bit < 8 * good.size(); ++bit) {
    const std::size_t at = bit / 8;
    if (at >= kHeader && at < table) continue;          // the segments: AnyFlippedBitOfASmallPayloadIsRefused
    if (at > kSlotA + 100 && at < kFloe && at % 128 != 0) continue;  // filler, all alike
    Bytes file = good;
    file[at] ^= std::byte{1} << (bit % 8);
    const std::string trace = message("bit ", bit);
    if (at < 8) {
      expect_refused<SealError>(file, trace, "Expected a sealed file");
    } else if (at < 16) {
      expect_refused<SealError>(file, trace, "unsupported version");
    } else if (at < 28) {
      expect_refused<SealError>(file, trace, "xpected");  // lengths: cap, truncated, trailing
    } else if (at < kState) {
      expect_refused<SealError>(file, trace, "Expected the header that was sealed");
    } else if (at < kFloe) {
      expect_refused<SealError>(file, trace, "key slots");
    } else if (at < kHeader) {
      expect_refused<SealError>(file, trace, "trailer that was sealed");  // the manifest covers the FLOE header
    } else if (at < trailer) {
      write_file(folder_ / "x", file);
      expect_error<SealError>([&] { Container(folder_ / "x", keyring_).verify_all(); }, "digests of the segments");
    } else {
      expect_refused<SealError>(file, trace, "trailer");
    }
  }
}

// Such a slot is what an interrupted re-wrap leaves, which has marked the file before. It is never used, and it shows.
TEST_F(ContainerTest, ADamagedSlotOfAMarkedFileIsNotUsed) {
  const Bytes good = sealed(100);
  for (std::size_t at : {std::size_t{0}, std::size_t{7}, std::size_t{100}, kMacAt, std::size_t{4095}}) {
    Bytes file = good;
    file[kState] = kRewrapping;
    file[kSlotB + at] ^= std::byte{1};
    write_file(folder_ / "x", file);
    EXPECT_EQ(open_all(folder_ / "x", keyring_), numbered(100));
    EXPECT_TRUE(Container(folder_ / "x", keyring_).slots().unfinished());
    file[kSlotA + at] ^= std::byte{1};
    expect_refused<SealError>(file, "key slots");
  }
}

// Somebody without the key writes slots whose checksum fits.
TEST_F(ContainerTest, ForgedSlotsAreRefused) {
  const Bytes good = sealed(100);
  const auto forged = [&](const auto& change) {
    Bytes file = good;
    const auto slot = std::span(file).subspan(kSlotA, 4096);
    change(slot);
    const Sha384 sum = sha384(slot.first(4048));
    std::copy(sum.begin(), sum.end(), slot.begin() + 4048);
    return file;
  };
  EXPECT_EQ(forged([](auto) {}), good);
  const auto set = [](std::span<std::byte> slot, std::size_t at, std::uint64_t value, int bytes) {
    std::vector<std::byte> field;
    append_big_endian(field, value, bytes);
    std::copy(field.begin(), field.end(), slot.begin() + static_cast<std::ptrdiff_t>(at));
  };
  for (const auto& [at, bytes] : {std::pair{0, 8}, std::pair{16, 2}, std::pair{18, 2}}) {
    for (std::uint64_t value : {std::uint64_t{0}, std::uint64_t{1} << 63, UINT64_MAX, std::uint64_t{0x8000}}) {
      if (bytes == 2 && value == std::uint64_t{1} << 63) continue;
      if (at == 0 && value == 0x8000) continue;  // a generation like others: the MAC refuses it, below
      expect_refused<SealError>(forged([&, at = at, bytes = bytes](auto slot) { set(slot, at, value, bytes); }),
                                message(value, " at ", at), "key slot");
    }
  }
  expect_refused<SealError>(forged([](auto slot) { slot[3000] ^= std::byte{1}; }), "header that was sealed");
  expect_refused<SealError>(forged([](auto slot) { slot[kKeyIdAt] = std::byte{'\n'}; }), "key slots");
  expect_refused<KeyError>(forged([](auto slot) { slot[kKeyIdAt] ^= std::byte{1}; }), "none of that id");
  expect_refused<SealError>(forged([](auto slot) { slot[kWrappedAt] ^= std::byte{1}; }), "Expected a data key");
  expect_refused<SealError>(forged([&](auto slot) { set(slot, 0, 2, 8); }), "header that was sealed");
  Bytes empty = good;  // the other slot: nobody uses it, and still it is authentic
  empty[kSlotB + 50] ^= std::byte{1};
  const Sha384 sum = sha384(std::span(empty).subspan(kSlotB, 4048));
  std::copy(sum.begin(), sum.end(), empty.begin() + static_cast<std::ptrdiff_t>(kSlotB + 4048));
  expect_refused<SealError>(empty, "header that was sealed");
  expect_refused<SealError>(forged([](auto slot) { slot[kMacAt] ^= std::byte{1}; }), "header that was sealed");
  Bytes twice = good;  // both slots claim one generation
  std::copy_n(twice.begin() + static_cast<std::ptrdiff_t>(kSlotA), 4096,
              twice.begin() + static_cast<std::ptrdiff_t>(kSlotB));
  expect_refused<SealError>(twice, "key slots");
}

TEST_F(ContainerTest, AnyFlippedBitOfASmallPayloadIsRefused) {
  const Bytes good = sealed(20);
  for (std::size_t bit = 8 * kHeader; bit < 8 * (kHeader + body_of(20)); ++bit) {
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
  std::vector<std::size_t> boundaries{0, 8, 10, 12, 16, 24, 28, kState, kSlotA, kSlotB, kFloe, kHeader, kHeader + 4, kHeader + 16,
                                      good.size() - 512, good.size()};
  for (std::size_t field : {kKeyIdAt, kWrappedAt, kWrappedEnd, kMacAt}) boundaries.push_back(kSlotA + field);
  for (std::size_t s : {1u, 2u}) boundaries.push_back(kHeader + s * kSegment);
  for (std::size_t s : {0u, 1u, 2u}) boundaries.push_back(good.size() - 512 - 32 * s);
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
  twice.insert(twice.end(), good.end() - 532 - 64 - 512, good.end() - 64 - 512);
  expect_refused<SealError>(twice, "trailing bytes");
}

TEST_F(ContainerTest, SegmentsCannotBeSwappedRepeatedOrDropped) {
  const Bytes good = sealed(4 * kRoom);  // four segments of one length
  const auto arrange = [&](std::initializer_list<std::size_t> order) {
    Bytes file(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(kHeader));
    for (std::size_t i : order) append(file, std::span(good).subspan(kHeader + i * kSegment, kSegment));
    append(file, std::span(good).last(tail_of(4 * kRoom)));
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
  const auto splice = [](const Bytes& outer, const Bytes& inner, std::size_t from, std::size_t to) {
    Bytes file = outer;
    std::copy(inner.begin() + static_cast<std::ptrdiff_t>(from),
              inner.begin() + static_cast<std::ptrdiff_t>(to),
              file.begin() + static_cast<std::ptrdiff_t>(from));
    return file;
  };
  const std::size_t trailer = a.size() - 512;
  expect_refused<SealError>(splice(a, b, kHeader, kHeader + kSegment), "segment of b", "segment 0");
  expect_refused<SealError>(splice(a, b, kHeader, trailer), "body of b", "segment");
  expect_refused<SealError>(splice(a, b, kFloe, kHeader), "FLOE header of b", "trailer that was sealed");
  expect_refused<SealError>(splice(a, b, kFloe, a.size()), "payload of b", "trailer that was sealed");
  expect_refused<SealError>(splice(a, b, trailer, a.size()), "trailer of b", "trailer that was sealed");
  expect_refused<SealError>(splice(a, b, kSlotA + kWrappedAt, kSlotA + kWrappedEnd), "wrapped key of b", "key slots");
  expect_refused<SealError>(splice(a, b, kSlotA, kFloe), "key slots of b", "trailer that was sealed");  // same core
  const std::string other_core = std::string(kCore.size() - 1, ' ') + "1";
  seal(folder_ / "c", numbered(2 * kRoom), keyring_, other_core);
  const Bytes c = read_file(folder_ / "c");
  expect_refused<SealError>(splice(a, c, kSlotA, kFloe), "key slots of c", "header that was sealed");
  expect_refused<SealError>(splice(a, c, 0, kState), "core of c", "header that was sealed");
  Bytes both = a;  // the slot of c, a generation later, beside that of a
  const WrappedKey wrapped = keyring_.wrap("icu", SecretBytes::random(32).bytes());
  const auto forged = encode_slot(2, wrapped, SecretBytes::random(32), Sha384{});
  std::copy(forged.begin(), forged.end(), both.begin() + static_cast<std::ptrdiff_t>(kSlotB));
  expect_refused<SealError>(both, "a newer slot of somebody else", "key slots");
  both[kState] = kRewrapping;
  expect_refused<SealError>(both, "a newer slot of somebody else, marked", "header that was sealed");
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
    if (value != 2) refused(8, value, 2);
    if (value != 1) refused(10, value, 2);
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
  const auto by_hand = [&](const std::string& name, char digit) {
    std::string text = "hushgrad keyring 1\n" + keyring_.list()[0].id + " 2026-01-31T12:00:00Z active " +
                       std::string(64, digit) + " icu\n";
    text += "sha384 " + to_hex(sha384(text_bytes(text))) + "\n";
    write_file(folder_ / name, text_bytes(text));
    ::chmod((folder_ / name).c_str(), 0600);
    return Keyring::open(folder_ / name);
  };
  const Keyring wrong = by_hand("wrong", '7');
  seal(folder_ / "c", numbered(10), by_hand("right", '6'));
  expect_error<SealError>([&] { Container(folder_ / "c", wrong); }, "data key");
  expect_error<KeyError>([&] { Container(folder_ / "a", wrong); }, "an older copy");

  keyring_.rotate_key("icu");
  EXPECT_EQ(open_all(folder_ / "a", keyring_), numbered(10)) << "a retired key still opens";
  EXPECT_THROW(ContainerWriter(folder_ / "b", "unknown", kCore, MemorySource({}), keyring_),
               InvalidArgument);
  const Bytes one(1);
  const std::span<const std::byte> chunk(one);
  EXPECT_THROW(
      ContainerWriter(folder_ / "b", "unknown", kCore, MemorySource({chunk}), keyring_),
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
  const int calls = 1 + 1 + 3 + 1 + 1 + 1;                       // openat, header, segments, tail, fsync, rename
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
    EXPECT_EQ(open_all(folder_ / "a", keyring_), call < 8 ? old : fresh) << call;
  }
  EXPECT_EQ(kills, 9);
}

}  // namespace
}  // namespace hushgrad
