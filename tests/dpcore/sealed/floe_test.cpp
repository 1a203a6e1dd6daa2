#include "dpcore/sealed/floe.h"

#include <algorithm>
#include <array>

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <set>

#include "dpcore/error.h"
#include "dpcore/keys/seal_testing.h"
#include "dpcore/sealed/insecure_floe_for_tests.h"

namespace hushgrad {
namespace {

using namespace seal_testing;

const Bytes kKey(32);
const Bytes kAad = bytes_of("This is AAD");

Bytes hex_file(const std::filesystem::path& path) {
  const Bytes raw = read_file(path);
  std::string digits(reinterpret_cast<const char*>(raw.data()), raw.size());
  std::erase_if(digits, [](char c) { return std::isspace(static_cast<unsigned char>(c)); });
  return hex(digits);
}

struct KnownAnswer {
  std::string name;
  std::uint32_t segment_bytes;
  unsigned rotation_bits;
  Bytes plaintext, ciphertext;
};

// Parameters as in the reference tests: `rotation` masks two bits of the segment number.
std::vector<KnownAnswer> known_answers() {
  std::vector<KnownAnswer> all;
  for (const auto& entry : std::filesystem::directory_iterator(*vectors() / "floe")) {
    const std::string file = entry.path().filename();
    if (!file.ends_with("_ct.txt")) continue;
    const std::string name = file.substr(0, file.size() - 7);
    const std::uint32_t segment_bytes = name.ends_with("_4K") ? 4096 : name.ends_with("_64") ? 64 : 40;
    all.push_back({name, segment_bytes, name.ends_with("_rotation") ? 2 : Floe::kRotationBits,
                   hex_file(entry.path().parent_path() / (name + "_pt.txt")), hex_file(entry.path())});
  }
  return all;
}

// Segment by segment, by the number of segments that the plaintext's length and the reference streams give.
TEST(Floe, KnownAnswersOfAllLanguagesDecrypt) {
  SKIP_WITHOUT_VECTORS();
  const auto all = known_answers();
  EXPECT_EQ(all.size(), 17u);
  for (const KnownAnswer& known : all) {
    SCOPED_TRACE(known.name);
    Floe floe = Floe::start_decryption(kKey, kAad, known.segment_bytes,
                                       std::span(known.ciphertext).first(Floe::kHeaderBytes));
    InsecureFloeForTests::rotate_keys_every(floe, known.rotation_bits);
    std::span<const std::byte> rest = std::span(known.ciphertext).subspan(Floe::kHeaderBytes);
    Bytes plaintext;
    for (std::uint64_t i = 0; !rest.empty(); ++i) {
      const auto segment = rest.first(std::min<std::size_t>(rest.size(), known.segment_bytes));
      Bytes part(segment.size() - Floe::kSegmentOverhead);
      floe.decrypt_segment(i, segment.size() == rest.size(), segment, part);
      append(plaintext, part);
      rest = rest.subspan(segment.size());
    }
    EXPECT_EQ(to_hex(plaintext), to_hex(known.plaintext));
    if (known.rotation_bits == Floe::kRotationBits) {
      EXPECT_EQ(floe_decrypt(kKey, kAad, known.segment_bytes, known.ciphertext), known.plaintext);
    }
  }
}

TEST(Floe, KnownAnswersOfAllLanguagesEncryptByteForByteUnderTheirIvs) {
  SKIP_WITHOUT_VECTORS();
  for (const KnownAnswer& known : known_answers()) {
    SCOPED_TRACE(known.name);
    const std::span<const std::byte> ciphertext(known.ciphertext);
    Floe floe = InsecureFloeForTests::start_encryption_with_fixed_iv(kKey, kAad, known.segment_bytes,
                                                                     ciphertext.subspan(10, Floe::kIvBytes));
    InsecureFloeForTests::rotate_keys_every(floe, known.rotation_bits);
    Bytes out(floe.header().begin(), floe.header().end());
    std::span<const std::byte> plaintext(known.plaintext);
    for (std::uint64_t i = 0; out.size() < ciphertext.size(); ++i) {
      const std::size_t size = std::min<std::size_t>(known.segment_bytes, ciphertext.size() - out.size());
      Bytes segment(size);
      const auto iv = ciphertext.subspan(out.size() + 4, 12);
      InsecureFloeForTests::encrypt_segment_with_fixed_iv(floe, i, out.size() + size == ciphertext.size(), iv,
                                                          plaintext.first(size - Floe::kSegmentOverhead),
                                                          segment);
      plaintext = plaintext.subspan(size - Floe::kSegmentOverhead);
      append(out, segment);
    }
    EXPECT_TRUE(plaintext.empty());
    EXPECT_EQ(to_hex(out), to_hex(known.ciphertext));
  }
}

Bytes numbered(std::size_t size) {
  Bytes out(size);
  for (std::size_t i = 0; i < size; ++i) out[i] = static_cast<std::byte>(i * 7 + 1);
  return out;
}

TEST(Floe, RoundTripsAtEveryLength) {
  for (std::size_t size = 0; size <= 40; ++size) {
    const Bytes plaintext = numbered(size);
    const Bytes sealed = floe_encrypt(kKey, kAad, 40, plaintext);  // 8 plaintext bytes a segment
    EXPECT_EQ(sealed.size(), 74 + size + 32 * std::max<std::size_t>(1, (size + 7) / 8));
    EXPECT_EQ(floe_decrypt(kKey, kAad, 40, sealed), plaintext);
  }
}

// 96-bit IVs: 200 random ones repeat with probability below 2^-81.
TEST(Floe, NeverRepeatsAnIv) {
  std::set<std::string> headers, ivs;
  for (int i = 0; i < 50; ++i) {
    const Bytes sealed = floe_encrypt(kKey, kAad, 40, numbered(32));
    headers.insert(to_hex(std::span(sealed).subspan(10, 32)));
    for (std::size_t s = 0; s < 4; ++s) ivs.insert(to_hex(std::span(sealed).subspan(74 + 40 * s + 4, 12)));
  }
  EXPECT_EQ(headers.size(), 50u);
  EXPECT_EQ(ivs.size(), 200u);
}

TEST(Floe, AnyFlippedBitAnyCutAndAnyAdditionIsRefused) {
  const Bytes sealed = floe_encrypt(kKey, kAad, 40, numbered(20));
  for (std::size_t bit = 0; bit < 8 * sealed.size(); ++bit) {
    Bytes altered = sealed;
    altered[bit / 8] ^= std::byte{1} << (bit % 8);
    EXPECT_THROW(floe_decrypt(kKey, kAad, 40, altered), SealError) << bit;
  }
  for (std::size_t size = 0; size < sealed.size(); ++size) {
    EXPECT_THROW(floe_decrypt(kKey, kAad, 40, std::span(sealed).first(size)), SealError) << size;
  }
  for (std::size_t extra : {1u, 12u, 16u, 20u, 32u, 40u, 80u}) {
    Bytes longer = sealed;
    append(longer, Bytes(extra));
    EXPECT_THROW(floe_decrypt(kKey, kAad, 40, longer), SealError) << extra;
  }
}

TEST(Floe, SegmentsHaveOnePlace) {
  const Bytes sealed = floe_encrypt(kKey, kAad, 40, numbered(32));  // four full segments, the last one final
  const auto segment = [&](std::size_t i) { return std::span(sealed).subspan(74 + 40 * i, 40); };
  const auto join = [&](std::initializer_list<std::size_t> order) {
    Bytes out(sealed.begin(), sealed.begin() + 74);
    for (std::size_t i : order) append(out, segment(i));
    return out;
  };
  EXPECT_NO_THROW(floe_decrypt(kKey, kAad, 40, join({0, 1, 2, 3})));
  for (const auto& order : {std::initializer_list<std::size_t>{1, 0, 2, 3},
                            {0, 2, 1, 3},
                            {3, 1, 2, 0},
                            {0, 0, 2, 3},
                            {0, 1, 1, 3},
                            {0, 1, 3},
                            {1, 2, 3},
                            {0, 1, 2},
                            {0, 1, 2, 3, 3},
                            {0, 1, 2, 2, 3},
                            {3},
                            {0}}) {
    EXPECT_THROW(floe_decrypt(kKey, kAad, 40, join(order)), SealError);
  }
  // A final segment as an inner one and the other way round, with the length prefix that goes with the claim.
  const Floe floe = Floe::start_decryption(kKey, kAad, 40, std::span(sealed).first(74));
  Bytes out(8), last(segment(3).begin(), segment(3).end()), inner(segment(2).begin(), segment(2).end());
  std::fill_n(last.begin(), 4, std::byte{0xFF});
  EXPECT_THROW(floe.decrypt_segment(3, false, last, out), SealError);
  std::fill_n(inner.begin(), 4, std::byte{0});
  inner[3] = std::byte{40};
  EXPECT_THROW(floe.decrypt_segment(2, true, inner, out), SealError);
  EXPECT_THROW(floe.decrypt_segment(3, true, inner, out), SealError);
}

TEST(Floe, TwoMessagesDoNotMix) {
  const Bytes plaintext = numbered(16);
  const Bytes a = floe_encrypt(kKey, kAad, 40, plaintext), b = floe_encrypt(kKey, kAad, 40, plaintext);
  for (std::size_t cut : {74u, 114u}) {
    Bytes mixed(a.begin(), a.begin() + cut);
    append(mixed, std::span(b).subspan(cut));
    EXPECT_THROW(floe_decrypt(kKey, kAad, 40, mixed), SealError);
  }
}

TEST(Floe, HeaderCommitsToKeyContextAndSegmentLength) {
  const Bytes sealed = floe_encrypt(kKey, kAad, 40, numbered(8));
  Bytes key = kKey;
  key[31] = std::byte{1};
  expect_error<SealError>([&] { floe_decrypt(key, kAad, 40, sealed); }, "header");
  expect_error<SealError>([&] { floe_decrypt(kKey, bytes_of("This is AAE"), 40, sealed); }, "header");
  expect_error<SealError>([&] { floe_decrypt(kKey, {}, 40, sealed); }, "header");
  expect_error<SealError>([&] { floe_decrypt(kKey, kAad, 41, sealed); }, "header");
}

TEST(Floe, RefusedSegmentsReleaseNothing) {
  const Bytes sealed = floe_encrypt(kKey, kAad, 40, numbered(8));
  const Floe floe = Floe::start_decryption(kKey, kAad, 40, std::span(sealed).first(74));
  Bytes segment(sealed.begin() + 74, sealed.end()), out(8, std::byte{0});
  segment.back() ^= std::byte{1};
  EXPECT_THROW(floe.decrypt_segment(0, true, segment, out), SealError);
  EXPECT_EQ(out, Bytes(8));
}

TEST(Floe, RotatesKeysEvery2To20Segments) {
  const Floe floe = Floe::start_encryption(kKey, kAad, 40);
  const auto key = [&](std::uint64_t position) { return InsecureFloeForTests::segment_key(floe, position); };
  EXPECT_EQ(key(0), key((1 << 20) - 1));
  EXPECT_NE(key(0), key(1 << 20));
  EXPECT_EQ(key(1 << 20), key((1 << 21) - 1));
  EXPECT_NE(key(0), key(std::uint64_t{1} << 32));
}

TEST(Floe, RefusesLengthsAndPositionsOutsideItsDomain) {
  EXPECT_THROW(Floe::start_encryption(Bytes(31), kAad, 40), InvalidArgument);
  EXPECT_THROW(Floe::start_encryption(kKey, Bytes(513), 40), InvalidArgument);
  EXPECT_NO_THROW(Floe::start_encryption(kKey, Bytes(512), 33));
  EXPECT_THROW(Floe::start_encryption(kKey, kAad, 32), InvalidArgument);
  EXPECT_THROW(Floe::start_encryption(kKey, kAad, 0), InvalidArgument);
  EXPECT_THROW(Floe::start_encryption(kKey, kAad, 0x80000000u), InvalidArgument);
  const Floe floe = Floe::start_encryption(kKey, kAad, 40);
  Bytes segment(40), small(39), big(41);
  const std::uint64_t last = (std::uint64_t{1} << 40) - 1;
  EXPECT_NO_THROW(floe.encrypt_segment(last, true, Bytes(8), segment));
  EXPECT_THROW(floe.encrypt_segment(last, false, Bytes(8), segment), InvalidArgument);
  EXPECT_THROW(floe.encrypt_segment(last + 1, true, Bytes(8), segment), InvalidArgument);
  EXPECT_THROW(floe.encrypt_segment(0, false, Bytes(7), small), InvalidArgument);
  EXPECT_THROW(floe.encrypt_segment(0, true, Bytes(9), big), InvalidArgument);
  EXPECT_THROW(floe.encrypt_segment(0, true, Bytes(8), small), InvalidArgument);
}

// Attack 27: one message, one position, many processes that were forked from one state.
TEST(Floe, AMillionSegmentsOverForksShareNoNonce) {
  constexpr std::size_t kProcesses = 4, kEach = 250'000;
  using Iv = std::array<std::byte, 12>;
  const std::size_t size = kProcesses * kEach * sizeof(Iv);
  void* shared = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(shared, MAP_FAILED);
  const std::span<Iv> ivs(static_cast<Iv*>(shared), kProcesses * kEach);
  const Floe floe = Floe::start_encryption(Bytes(32, std::byte{7}), {}, 40);
  Bytes segment(40);
  floe.encrypt_segment(0, false, Bytes(8), segment);  // the generator is running before the forks
  std::vector<pid_t> children;
  for (std::size_t process = 0; process < kProcesses; ++process) {
    const pid_t child = ::fork();
    if (child == 0) {
      const Bytes plain(8);
      for (std::size_t i = 0; i < kEach; ++i) {
        floe.encrypt_segment(0, false, plain, segment);
        std::copy_n(segment.begin() + 4, sizeof(Iv), ivs[process * kEach + i].begin());
      }
      ::_exit(0);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) ::waitpid(child, nullptr, 0);
  std::sort(ivs.begin(), ivs.end());
  EXPECT_NE(ivs.front(), Iv{}) << "some child did not finish";
  EXPECT_EQ(std::adjacent_find(ivs.begin(), ivs.end()), ivs.end());
  ::munmap(shared, size);
}

}  // namespace
}  // namespace hushgrad
