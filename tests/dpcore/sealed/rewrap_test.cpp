#include "dpcore/sealed/rewrap.h"

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dpcore/error.h"
#include "dpcore/keys/keyring.h"
#include "dpcore/keys/seal_testing.h"
#include "dpcore/sealed/container_header.h"
#include "dpcore/sealed/sealed_file.h"

namespace hushgrad {
namespace {

using namespace seal_testing;

class RewrapTest : public ::testing::Test {
 protected:
  RewrapTest() { keyring_.create_key("icu"); }

  void seal(const std::string& name) {
    write_sealed(folder_ / name, {.dataset = "icu"}, "{}", std::vector<SealedTensor>{{"w", "U8", {4}, text_bytes("data")}},
                 keyring_, IfExists::replace);
  }
  std::string read(const std::string& name, const Keyring& keys) {
    const SealedReader reader(folder_ / name, keys);
    std::string out(4, '\0');
    reader.read(reader.entry("w"), std::as_writable_bytes(std::span(out)));
    return out;
  }
  TemporaryFolder folder_;
  Keyring keyring_ = Keyring::create(folder_ / "k");
};

TEST_F(RewrapTest, MovesToTheActiveKeyAndLeavesNothingOfTheOldOne) {
  seal("a");
  const Bytes before = read_file(folder_ / "a");
  const std::string old_key = appearance_of(folder_ / "a").key_id;
  EXPECT_FALSE(rewrap(folder_ / "a", keyring_).changed);
  EXPECT_EQ(read_file(folder_ / "a"), before);
  keyring_.rotate_key("icu");
  const Rewrapped done = rewrap(folder_ / "a", keyring_);
  EXPECT_TRUE(done.changed);
  EXPECT_EQ(done.from, old_key);
  EXPECT_EQ(done.generation, 2u);
  EXPECT_EQ(appearance_of(folder_ / "a").key_id, done.to);
  EXPECT_EQ(read("a", keyring_), "data");
  const Bytes after = read_file(folder_ / "a");
  EXPECT_EQ(std::search(after.begin(), after.end(), text_bytes(old_key).begin(), text_bytes(old_key).end()), after.end());
  for (std::uint64_t generation = 3; generation < 6; ++generation) {  // to and fro between the slots
    keyring_.rotate_key("icu");
    EXPECT_EQ(rewrap(folder_ / "a", keyring_).generation, generation);
    EXPECT_EQ(read("a", keyring_), "data");
  }
}

TEST_F(RewrapTest, FinishesWhatWasInterrupted) {
  seal("a");
  Bytes damaged = read_file(folder_ / "a");
  const ContainerHeader header = ContainerHeader::open(folder_ / "a");
  damaged[header.slot_offset(1) + 17] ^= std::byte{1};
  write_file(folder_ / "a", damaged);
  EXPECT_THROW(rewrap(folder_ / "a", keyring_), SealError) << "nobody marked the file";
  damaged[header.state_offset()] = kRewrapping;
  write_file(folder_ / "a", damaged);
  EXPECT_TRUE(appearance_of(folder_ / "a").damaged_slot);
  EXPECT_FALSE(rewrap(folder_ / "a", keyring_).changed);
  EXPECT_FALSE(appearance_of(folder_ / "a").damaged_slot);
  EXPECT_EQ(read("a", keyring_), "data");
}

TEST_F(RewrapTest, MovesToAnotherKeyring) {
  seal("a");
  Keyring other = Keyring::create(folder_ / "other");
  EXPECT_THROW(rewrap(folder_ / "a", keyring_, other), KeyError);  // it has no key of that dataset
  EXPECT_EQ(read("a", keyring_), "data");
  other.create_key("icu");
  rewrap(folder_ / "a", keyring_, other);
  EXPECT_EQ(read("a", other), "data");
  EXPECT_THROW(read("a", keyring_), KeyError);
  EXPECT_THROW(rewrap(folder_ / "a", keyring_, other), KeyError);
}

TEST_F(RewrapTest, ReadersThatHaveTheFileOpenGoOn) {
  seal("a");
  const SealedReader reader(folder_ / "a", keyring_);
  keyring_.rotate_key("icu");
  rewrap(folder_ / "a", keyring_);
  std::string out(4, '\0');
  reader.read(reader.entry("w"), std::as_writable_bytes(std::span(out)));
  EXPECT_EQ(out, "data");
}

// Who has the data key can write any generation. The one after the last is none: the file would never open again.
TEST_F(RewrapTest, TheLastGenerationIsNotPassed) {
  seal("a");
  const std::string path = folder_ / "a";
  const ContainerHeader header = ContainerHeader::open(path, O_RDWR);
  const SecretBytes data_key = authenticate(header, keyring_);
  const auto slot = encode_slot(KeySlot::kMaxGeneration, header.active_slot().key, data_key, header.core_digest);
  ASSERT_EQ(::pwrite(header.file.get(), slot.data(), slot.size(), static_cast<off_t>(header.slot_offset(0))),
            static_cast<ssize_t>(slot.size()));
  keyring_.rotate_key("icu");
  const Bytes before = read_file(path);
  EXPECT_THROW(rewrap(path, keyring_), SealError);
  EXPECT_EQ(read_file(path), before);
  EXPECT_NO_THROW(SealedReader(path, keyring_).verify_all());
}

TEST_F(RewrapTest, RefusesLinksAndFilesThatAreNotSealed) {
  seal("a");
  std::filesystem::create_symlink(folder_ / "a", folder_ / "link");
  EXPECT_THROW(rewrap(folder_ / "link", keyring_), IoError);
  write_file(folder_ / "text", text_bytes("hello"));
  EXPECT_THROW(rewrap(folder_ / "text", keyring_), SealError);
  EXPECT_THROW(rewrap(folder_ / "none", keyring_), IoError);
  const Bytes good = read_file(folder_ / "a");
  Bytes damaged = good;
  damaged[40] ^= std::byte{1};
  write_file(folder_ / "a", damaged);
  EXPECT_THROW(rewrap(folder_ / "a", keyring_), SealError);
  EXPECT_EQ(read_file(folder_ / "a"), damaged);
}

// Attack 25 for re-wraps: at every call, before it, and with a slot that is half written.
TEST_F(RewrapTest, AKillOrFaultAtAnyCallLeavesAFileThatOpens) {
  using Action = SyscallFault::Action;
  seal("a");
  const Bytes fresh = read_file(folder_ / "a");
  keyring_.rotate_key("icu");
  int kills = 0;
  for (int call = 0;; ++call) {
    write_file(folder_ / "a", fresh);
    const pid_t child = ::fork();
    if (child == 0) {
      SyscallFault::current().arm(Action::kill, call);
      rewrap(folder_ / "a", keyring_);
      ::_exit(0);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(read("a", keyring_), "data") << call;
    if (!WIFSIGNALED(status)) break;
    ++kills;
    rewrap(folder_ / "a", keyring_);  // starts again where it stopped
    EXPECT_EQ(read("a", keyring_), "data") << call;
    EXPECT_FALSE(rewrap(folder_ / "a", keyring_).changed);
    EXPECT_FALSE(SealedReader(folder_ / "a", keyring_).slots().unfinished());
  }
  EXPECT_EQ(kills, 8);  // mark, new slot, old slot, mark: write and fsync each
  for (int error : {ENOSPC, EIO, EDQUOT, EROFS}) {
    for (int call = 0; call < kills; ++call) {
      write_file(folder_ / "a", fresh);
      SyscallFault::current().arm(Action::fail, call, error);
      EXPECT_THROW(rewrap(folder_ / "a", keyring_), IoError) << call;
      const int fsyncs = SyscallFault::current().fsyncs;
      SyscallFault::current().disarm();
      EXPECT_EQ(fsyncs, (call + 1) / 2) << "a failed fsync is never tried again";
      EXPECT_EQ(read("a", keyring_), "data") << call;
    }
  }
  for (std::size_t written : {0u, 1u, 11u, 12u, 50u, 4000u, 4047u, 4048u, 4095u}) {  // torn
    write_file(folder_ / "a", fresh);
    rewrap(folder_ / "a", keyring_);
    const Bytes done = read_file(folder_ / "a");
    const ContainerHeader header = ContainerHeader::open(folder_ / "a");
    Bytes torn = fresh;
    torn[header.state_offset()] = kRewrapping;
    std::copy_n(done.begin() + static_cast<std::ptrdiff_t>(header.slot_offset(1)), written,
                torn.begin() + static_cast<std::ptrdiff_t>(header.slot_offset(1)));
    write_file(folder_ / "a", torn);
    EXPECT_EQ(read("a", keyring_), "data") << written;
    EXPECT_TRUE(rewrap(folder_ / "a", keyring_).changed);
    EXPECT_EQ(appearance_of(folder_ / "a").generation, 2u);
  }
}

TEST_F(RewrapTest, ShortWritesAreFinished) {
  seal("a");
  keyring_.rotate_key("icu");
  SyscallFault::current().arm(SyscallFault::Action::shorten, 0);
  rewrap(folder_ / "a", keyring_);
  SyscallFault::current().disarm();
  EXPECT_EQ(read("a", keyring_), "data");
}

// Attack 26: readers never see a file that does not open, whoever re-wraps it meanwhile.
TEST_F(RewrapTest, ReadersSeeAWholeSlotWhileOthersRewrap) {
  seal("a");
  for (int i = 0; i < 3; ++i) keyring_.rotate_key("icu");
  Keyring other = Keyring::create(folder_ / "other");
  other.create_key("icu");
  std::vector<pid_t> children;
  for (int i = 0; i < 2; ++i) {
    const pid_t child = ::fork();
    if (child == 0) {
      for (int n = 0; n < 60; ++n) {
        for (const auto& [from, to] : {std::pair{&keyring_, &other}, std::pair{&other, &keyring_}}) {
          try {
            rewrap(folder_ / "a", *from, *to);
          } catch (const KeyError&) {  // the other process was first
          }
        }
      }
      ::_exit(0);
    }
    children.push_back(child);
  }
  int opened = 0;
  for (bool running = true; running;) {
    const bool ours = [&] {
      try {
        return read("a", keyring_) == "data";
      } catch (const KeyError&) {
        try {
          return read("a", other) == "data";
        } catch (const KeyError&) {
          return true;  // moved between the two attempts
        }
      }
    }();
    ASSERT_TRUE(ours);
    ++opened;
    running = ::waitpid(children.back(), nullptr, WNOHANG) == 0;
  }
  ::waitpid(children.front(), nullptr, 0);
  EXPECT_GT(opened, 10);
}

}  // namespace
}  // namespace hushgrad
