#include "dpcore/keys/keyring.h"

#include <cerrno>
#include <filesystem>
#include <fstream>

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dpcore/error.h"
#include "dpcore/keys/kdf.h"
#include "dpcore/keys/key_wrap.h"
#include "dpcore/keys/seal_testing.h"

namespace hushgrad {
namespace {

using namespace seal_testing;

const std::string kId(32, '1');
const std::string kSecret(64, '7');
const std::string kRest = " 2026-01-31T12:00:00Z active " + kSecret;
const std::string kLine = kId + kRest + " icu\n";

// A keyring file with a digest that fits, around any lines.
std::string keyring_text(const std::string& lines) {
  const std::string body = "hushgrad keyring 1\n" + lines;
  return body + "sha384 " + to_hex(sha384(text_bytes(body))) + "\n";
}

void put(const std::string& path, std::span<const std::byte> bytes, mode_t mode = 0600) {
  std::filesystem::remove(path);
  write_file(path, bytes);
  ::chmod(path.c_str(), mode);
}

TEST(Keyring, IsCreatedEmptyAndPrivate) {
  const TemporaryFolder folder;
  EXPECT_TRUE(Keyring::create(folder / "k").list().empty());
  struct stat status;
  ASSERT_EQ(::stat((folder / "k").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
  EXPECT_TRUE(Keyring::open(folder / "k").list().empty());
  EXPECT_THROW(Keyring::create(folder / "k"), IoError);
  EXPECT_THROW(Keyring::open(folder / "missing"), KeyError);
}

TEST(Keyring, KeepsOneActiveKeyADatasetAndRetiredOnes) {
  const TemporaryFolder folder;
  Keyring keyring = Keyring::create(folder / "k");
  keyring.create_key("icu");
  keyring.create_key("icu");
  keyring.create_key("radiology/chest");
  ASSERT_EQ(keyring.list().size(), 2u);
  const WrappedKey old = keyring.wrap("icu", Bytes(32, std::byte{5}));
  keyring.rotate_key("icu");

  const Keyring opened = Keyring::open(folder / "k");
  const std::vector<KeyInfo> keys = opened.list();
  ASSERT_EQ(keys.size(), 3u);
  EXPECT_EQ(keys[0].dataset, "icu");
  EXPECT_EQ(keys[0].state, "deactivated");
  EXPECT_EQ(keys[2].dataset, "icu");
  EXPECT_EQ(keys[2].state, "active");
  EXPECT_TRUE(opened.has_key("icu") && opened.has_key("radiology/chest"));
  EXPECT_FALSE(opened.has_key("ICU"));
  EXPECT_EQ(to_hex(opened.unwrap(old).bytes()), to_hex(Bytes(32, std::byte{5})));
  EXPECT_EQ(opened.wrap("icu", Bytes(32)).key_id, keys[2].id);
  EXPECT_EQ(opened.dataset_of(keys[0].id), "icu");
  EXPECT_THROW(keyring.rotate_key("unknown"), KeyError);
}

TEST(Keyring, WrapsUnderTheNamedKeyOnly) {
  const TemporaryFolder folder;
  Keyring keyring = Keyring::create(folder / "k");
  keyring.create_key("a");
  keyring.create_key("b");
  const Bytes data_key(32, std::byte{9});
  const WrappedKey wrapped = keyring.wrap("a", data_key);
  EXPECT_EQ(to_hex(keyring.unwrap(wrapped).bytes()), to_hex(data_key));
  EXPECT_THROW(keyring.wrap("c", data_key), KeyError);
  EXPECT_THROW(keyring.wrap("a", Bytes(31)), InvalidArgument);
  EXPECT_THROW(keyring.unwrap({kId, wrapped.bytes}), KeyError);
  EXPECT_THROW(keyring.unwrap({keyring.list()[1].id, wrapped.bytes}), SealError);
  EXPECT_THROW(keyring.unwrap({wrapped.key_id, Bytes(40)}), SealError);
  EXPECT_THROW(keyring.unwrap({wrapped.key_id, {}}), SealError);
}

TEST(Keyring, OnlyPlainDatasetNames) {
  const TemporaryFolder folder;
  Keyring keyring = Keyring::create(folder / "k");
  for (const std::string& good :
       {std::string("a"), std::string("org/data:v1"), std::string("chest x-ray, 2026"),
        std::string("Stra\xC3\x9F"
                    "e"),
        std::string("active"), std::string(256, 'a')}) {
    keyring.create_key(good);
    EXPECT_EQ(Keyring::open(folder / "k").list().back().dataset, good);
  }
  for (const std::string& bad : {std::string(), std::string(" a"), std::string("a "), std::string("a\nb"),
                                 std::string("a\0b", 3), std::string("a\x7F"), std::string("\xFF"),
                                 std::string("\xC3"), std::string("\xED\xA0\x80"), std::string(257, 'a')}) {
    EXPECT_THROW(check_dataset_name(bad), InvalidArgument) << bad;
    EXPECT_THROW(keyring.create_key(bad), InvalidArgument) << bad;
  }
}

TEST(Keyring, RefusesWhatOthersCouldReadOrSwap) {
  const TemporaryFolder folder;
  Keyring::create(folder / "k").create_key("icu");
  for (mode_t mode : {0640u, 0620u, 0610u, 0604u, 0602u, 0601u, 0666u}) {
    ::chmod((folder / "k").c_str(), mode);
    expect_error<KeyError>([&] { Keyring::open(folder / "k"); }, "0600");
  }
  ::chmod((folder / "k").c_str(), 0600);
  EXPECT_NO_THROW(Keyring::open(folder / "k"));
  std::filesystem::create_symlink(folder / "k", folder / "link");
  EXPECT_THROW(Keyring::open(folder / "link"), KeyError);
  EXPECT_THROW(Keyring::create(folder / "link"), IoError);
  ASSERT_EQ(::mkfifo((folder / "fifo").c_str(), 0600), 0);
  EXPECT_THROW(Keyring::open(folder / "fifo"), KeyError);
  ASSERT_EQ(::mkdir((folder / "folder").c_str(), 0700), 0);
  EXPECT_THROW(Keyring::open(folder / "folder"), KeyError);
  EXPECT_THROW(Keyring::open(std::string("k\0x", 3)), InvalidArgument);
}

TEST(Keyring, RefusesAFileOfAnotherOwner) {
  if (::geteuid() != 0) GTEST_SKIP() << "SKIPPED: giving a file away needs root";
  const TemporaryFolder folder;
  Keyring::create(folder / "k");
  ASSERT_EQ(::chown((folder / "k").c_str(), 1, 1), 0);
  expect_error<KeyError>([&] { Keyring::open(folder / "k"); }, "owner");
}

TEST(Keyring, FlippedBitsAndCutsAreRefused) {
  const TemporaryFolder folder;
  Keyring::create(folder / "k").create_key("icu");
  const Bytes good = read_file(folder / "k");
  for (std::size_t bit = 0; bit < 8 * good.size(); bit += 5) {
    Bytes altered = good;
    altered[bit / 8] ^= std::byte{1} << (bit % 8);
    put(folder / "x", altered);
    EXPECT_THROW(Keyring::open(folder / "x"), KeyError) << bit;
  }
  for (std::size_t size = 0; size < good.size(); size += 3) {
    put(folder / "x", std::span(good).first(size));
    EXPECT_THROW(Keyring::open(folder / "x"), KeyError) << size;
  }
  Bytes longer = good;
  longer.push_back(std::byte{'\n'});
  put(folder / "x", longer);
  EXPECT_THROW(Keyring::open(folder / "x"), KeyError);
}

TEST(Keyring, RefusesMalformedLinesUnderAFittingDigest) {
  const TemporaryFolder folder;
  put(folder / "x", text_bytes(keyring_text(kLine)));
  ASSERT_EQ(Keyring::open(folder / "x").list().size(), 1u);
  const std::string other_id = std::string(32, '2');
  for (const std::string& lines : {
           std::string("\n"),
           kLine + kLine,                                                  // empty; duplicate id
           kLine + other_id + kRest + " icu\n",                            // two active keys of a dataset
           std::string(31, '1') + kRest + " icu\n",                        // short id
           std::string(32, 'A') + kRest + " icu\n",                        // upper-case hexadecimal
           kId + kRest + "  icu\n",                                        // dataset with a space before it
           kId + kRest + " \n",                                            // empty dataset
           kId + kRest + "\n",                                             // no dataset
           kId + kRest + " i\tu\n",                                        // control character
           kId + kRest + " \xFF\n",                                        // no UTF-8
           kId + " " + kRest + " icu\n",                                   // empty field
           kId + " 2026-01-31 12:00:00Z active " + kSecret + " icu\n",     // time with a blank
           kId + " 2026-01-31T12:00:00 active " + kSecret + " icu\n",      // time without zone
           kId + " 2026-01-31T12:00:00Z destroyed " + kSecret + " icu\n",  // unknown state
           kId + " 2026-01-31T12:00:00Z active " + kSecret + "0 icu\n",    // long key
           kId + kRest + " icu",                                           // no end of line
       }) {
    put(folder / "x", text_bytes(keyring_text(lines)));
    const std::string text = thrown<KeyError>([&] { Keyring::open(folder / "x"); });
    EXPECT_EQ(text.find(kSecret), text.npos) << "a message shows a key";
  }
  const std::string version_3 = "hushgrad keyring 3\n";
  put(folder / "x", text_bytes(version_3 + "sha384 " + to_hex(sha384(text_bytes(version_3))) + "\n"));
  expect_error<KeyError>([&] { Keyring::open(folder / "x"); }, "version 1 or 2");
  std::ofstream(folder / "x").seekp((16 << 20) + 1).put('x');
  ::chmod((folder / "x").c_str(), 0600);
  expect_error<KeyError>([&] { Keyring::open(folder / "x"); }, "at most 16777216 bytes");
}

TEST(Keyring, ProcessesThatAddKeysAtOnceLoseNone) {
  const TemporaryFolder folder;
  Keyring::create(folder / "k");
  constexpr int kProcesses = 6, kKeys = 5;
  for (int p = 0; p < kProcesses; ++p) {
    if (::fork() != 0) continue;
    Keyring keyring = Keyring::open(folder / "k");
    for (int i = 0; i < kKeys; ++i) keyring.create_key(message("p", p, "/", i));
    ::_exit(0);
  }
  for (int p = 0; p < kProcesses; ++p) ::wait(nullptr);
  const Keyring keyring = Keyring::open(folder / "k");
  EXPECT_EQ(keyring.list().size(), static_cast<std::size_t>(kProcesses * kKeys));
  EXPECT_EQ(keyring.verify().sequence(), 1u + kProcesses * kKeys);
  EXPECT_EQ(folder.names().size(), 2u);
}

// Whatever fails, and when: the old keyring stands or the new one does, and the next change works.
TEST(Keyring, AFailedWriteKeepsTheOldKeyring) {
  const TemporaryFolder folder;
  Keyring keyring = Keyring::create(folder / "k");
  keyring.create_key("icu");
  const Bytes before = read_file(folder / "k");
  int failures = 0;
  for (int error : {ENOSPC, EIO}) {
    for (int call = 0; call < 20; ++call) {
      SyscallFault::current().arm(SyscallFault::Action::fail, call, error);
      bool failed = false;
      try {
        keyring.create_key("new");
      } catch (const IoError&) {
        failed = true;
      }
      SyscallFault::current().disarm();
      if (!failed) break;
      ++failures;
      if (read_file(folder / "k") != before) break;  // the last fsync: the new keyring stands
      EXPECT_FALSE(keyring.has_key("new"));
      EXPECT_FALSE(Keyring::open(folder / "k").has_key("new"));
      EXPECT_EQ(folder.names().size(), 2u);
    }
  }
  EXPECT_GE(failures, 6);
  keyring.create_key("new");
  EXPECT_TRUE(Keyring::open(folder / "k").has_key("new"));
  EXPECT_NO_THROW(keyring.verify());
}

// kill -9 before each system call of a change, and with half of what it writes.
TEST(Keyring, AKillLeavesTheOldOrTheNewKeyring) {
  for (const auto action : {SyscallFault::Action::kill, SyscallFault::Action::shorten}) {
    for (int call = 0; call < 20; ++call) {
      const TemporaryFolder folder;
      Keyring::create(folder / "k").create_key("icu");
      const WrappedKey wrapped = Keyring::open(folder / "k").wrap("icu", Bytes(32));
      const pid_t child = ::fork();
      if (child == 0) {
        Keyring keyring = Keyring::open(folder / "k");
        SyscallFault::current().arm(action, call);
        keyring.rotate_key("icu");
        ::_exit(0);
      }
      int status = 0;
      ::waitpid(child, &status, 0);
      Keyring keyring = Keyring::open(folder / "k");
      EXPECT_TRUE(keyring.list().size() == 1 || keyring.list().size() == 2);
      EXPECT_NO_THROW(keyring.unwrap(wrapped));
      keyring.rotate_key("icu");
      EXPECT_NO_THROW(keyring.verify());
      if (WIFEXITED(status)) break;
    }
  }
}

TEST(Keyring, VersionOneIsReadAndBecomesTwoWhenItIsChanged) {
  const TemporaryFolder folder;
  put(folder / "k", text_bytes(keyring_text(kLine)));
  Keyring keyring = Keyring::open(folder / "k");
  const WrappedKey wrapped = keyring.wrap("icu", Bytes(32, std::byte{3}));
  EXPECT_EQ(wrapped.key_id, kId);
  EXPECT_EQ(to_hex(wrapped.bytes), to_hex(aes256_kwp_wrap(hex(kSecret), Bytes(32, std::byte{3}))));
  EXPECT_EQ(keyring.generation(), 0u);
  keyring.rotate_key("icu");
  const Bytes text = read_file(folder / "k");
  EXPECT_TRUE(std::string(reinterpret_cast<const char*>(text.data()), 18) == "hushgrad keyring 2");
  const Keyring opened = Keyring::open(folder / "k");
  EXPECT_EQ(opened.generation(), 1u);
  EXPECT_EQ(to_hex(opened.unwrap(wrapped).bytes()), to_hex(Bytes(32, std::byte{3})));
  EXPECT_NO_THROW(opened.verify());
}

}  // namespace
}  // namespace hushgrad
