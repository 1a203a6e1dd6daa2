#include "dpcore/keys/durable_file.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdarg>
#include <filesystem>
#include <string>
#include <vector>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dpcore/error.h"
#include "dpcore/keys/seal_testing.h"

namespace hushgrad::seal_testing {

SyscallFault& SyscallFault::current() {
  static SyscallFault fault;
  return fault;
}

namespace {

// Whether this call is to fail. Kills the process instead where that was asked.
bool strikes() {
  SyscallFault& fault = SyscallFault::current();
  if (fault.action == SyscallFault::Action::none) return false;
  if (fault.calls++ != fault.countdown) return false;
  if (fault.action == SyscallFault::Action::kill) ::kill(::getpid(), SIGKILL);
  errno = fault.error;
  return fault.action == SyscallFault::Action::fail;
}

}  // namespace
}  // namespace hushgrad::seal_testing

// Defined in the program, so the library resolves its calls to them.
extern "C" {

int fsync(int descriptor) {
  ++hushgrad::seal_testing::SyscallFault::current().fsyncs;
  return hushgrad::seal_testing::strikes() ? -1 : static_cast<int>(syscall(SYS_fsync, descriptor));
}

ssize_t pwrite(int descriptor, const void* data, size_t size, off_t offset) {
  using hushgrad::seal_testing::SyscallFault;
  if (hushgrad::seal_testing::strikes()) return -1;
  const SyscallFault& fault = SyscallFault::current();
  if (fault.action == SyscallFault::Action::shorten && size > 7) size = 7;
  return syscall(SYS_pwrite64, descriptor, data, size, offset);
}

int renameat(int from_folder, const char* from, int to_folder, const char* to) noexcept {
  if (hushgrad::seal_testing::strikes()) return -1;
  return static_cast<int>(syscall(SYS_renameat2, from_folder, from, to_folder, to, 0));
}

int renameat2(int from_folder, const char* from, int to_folder, const char* to, unsigned flags) noexcept {
  if (hushgrad::seal_testing::strikes()) return -1;
  return static_cast<int>(syscall(SYS_renameat2, from_folder, from, to_folder, to, flags));
}

int openat(int folder, const char* path, int flags, ...) {
  mode_t mode = 0;
  if (flags & O_CREAT) {
    va_list rest;
    va_start(rest, flags);
    mode = va_arg(rest, mode_t);
    va_end(rest);
    if (hushgrad::seal_testing::strikes()) return -1;
  }
  return static_cast<int>(syscall(SYS_openat, folder, path, flags, mode));
}

}  // extern "C"

namespace hushgrad {
namespace {

using namespace seal_testing;
using Action = SyscallFault::Action;

void write(const std::string& path, std::string_view text, IfExists if_exists = IfExists::refuse) {
  DurableFile file(path, if_exists);
  file.write_at(0, text_bytes(text));
  file.publish();
}

std::string text_at(const std::string& path) {
  const Bytes bytes = read_file(path);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

TEST(DurableFile, AppearsWhenPublishedWithMode0600) {
  const TemporaryFolder folder;
  {
    DurableFile file(folder / "a", IfExists::refuse);
    file.write_at(3, text_bytes("def"));
    file.write_at(0, text_bytes("abc"));
    EXPECT_FALSE(std::filesystem::exists(folder / "a"));
    file.publish();
    EXPECT_THROW(file.publish(), InvalidState);
  }
  EXPECT_EQ(text_at(folder / "a"), "abcdef");
  struct stat status;
  ASSERT_EQ(::stat((folder / "a").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
  EXPECT_EQ(folder.names().size(), 1u);
}

// Pages of the file that the system holds in memory.
std::size_t pages_held(const std::string& path, std::size_t size) {
  const int descriptor = ::open(path.c_str(), O_RDONLY);
  void* mapped = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, descriptor, 0);
  ::close(descriptor);
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  std::vector<unsigned char> held((size + page - 1) / page);
  ::mincore(mapped, size, held.data());
  ::munmap(mapped, size);
  return static_cast<std::size_t>(std::count_if(held.begin(), held.end(), [](unsigned char h) { return h & 1; }));
}

TEST(DurableFile, GivesBackTheMemoryOfWhatItReplacesAndTheOldFileStays) {
  const TemporaryFolder folder;
  const std::string path = folder / "a", text(1 << 20, 'x');
  write(path, text);
  struct statfs system;
  ASSERT_EQ(::statfs(path.c_str(), &system), 0);
  constexpr long kTmpfs = 0x01021994;
  if (system.f_type == kTmpfs) GTEST_SKIP() << "SKIPPED: files of this file system are memory";
  EXPECT_EQ(text_at(path), text);
  EXPECT_GT(pages_held(path, text.size()), 0u);
  const DurableFile file(path, IfExists::replace);
  file.forget_replaced();
  EXPECT_EQ(pages_held(path, text.size()), 0u);
  EXPECT_EQ(text_at(path), text);
}

TEST(DurableFile, LeavesNothingUnlessPublished) {
  const TemporaryFolder folder;
  {
    DurableFile file(folder / "a", IfExists::refuse);
    file.write_at(0, text_bytes("abc"));
    EXPECT_EQ(folder.names().size(), 1u);
  }
  EXPECT_TRUE(folder.names().empty());
}

TEST(DurableFile, RefusesWhatExistsUnlessAskedToReplaceARegularFile) {
  const TemporaryFolder folder;
  write(folder / "old", "old");
  write(folder / "victim", "victim");
  std::filesystem::create_symlink(folder / "victim", folder / "link");
  std::filesystem::create_symlink(folder / "nowhere", folder / "dangling");
  std::filesystem::create_directory(folder / "folder");
  ASSERT_EQ(::mkfifo((folder / "fifo").c_str(), 0600), 0);
  for (const char* name : {"old", "link", "dangling", "folder", "fifo"}) {
    expect_error<IoError>([&] { write(folder / name, "new"); }, "nothing at");
  }
  for (const char* name : {"link", "dangling", "folder", "fifo"}) {
    expect_error<IoError>([&] { write(folder / name, "new", IfExists::replace); }, "regular file");
  }
  EXPECT_EQ(text_at(folder / "old"), "old");
  write(folder / "old", "new", IfExists::replace);
  EXPECT_EQ(text_at(folder / "old"), "new");
  EXPECT_EQ(text_at(folder / "victim"), "victim");
  EXPECT_FALSE(std::filesystem::exists(folder / "nowhere"));
  EXPECT_EQ(folder.names().size(), 6u);
}

TEST(DurableFile, RefusesWhatAppearsWhileWriting) {
  const TemporaryFolder folder;
  {
    DurableFile file(folder / "a", IfExists::refuse);
    write_file(folder / "a", text_bytes("other"));
    EXPECT_THROW(file.publish(), IoError);
  }
  EXPECT_EQ(text_at(folder / "a"), "other");
  EXPECT_EQ(folder.names().size(), 1u);
}

TEST(DurableFile, FallsBackToALinkWhereTheFlagIsUnknown) {
  const TemporaryFolder folder;
  SyscallFault::current().arm(Action::fail, 3, EINVAL);  // openat, pwrite, fsync, renameat2
  write(folder / "a", "abc");
  SyscallFault::current().arm(Action::fail, 3, EINVAL);
  {
    DurableFile file(folder / "b", IfExists::refuse);
    file.write_at(0, text_bytes("new"));
    write_file(folder / "b", text_bytes("other"));
    EXPECT_THROW(file.publish(), IoError);
  }
  SyscallFault::current().disarm();
  EXPECT_EQ(text_at(folder / "a"), "abc");
  EXPECT_EQ(text_at(folder / "b"), "other");
  EXPECT_EQ(folder.names().size(), 2u);
}

TEST(DurableFile, StaysInTheFolderThatWasOpened) {
  const TemporaryFolder folder;
  std::filesystem::create_directory(folder / "real");
  std::filesystem::create_directory(folder / "trap");
  {
    DurableFile file(folder / "real/a", IfExists::refuse);
    std::filesystem::rename(folder / "real", folder / "moved");
    std::filesystem::create_directory_symlink(folder / "trap", folder / "real");
    file.publish();
  }
  EXPECT_TRUE(std::filesystem::exists(folder / "moved/a"));
  EXPECT_TRUE(std::filesystem::is_empty(folder / "trap"));
}

TEST(DurableFile, RefusesPathsThatNameNoFile) {
  const TemporaryFolder folder;
  for (const std::string& path :
       {std::string(), folder / "", folder / ".", folder / "..", std::string("a\0b", 3)}) {
    EXPECT_THROW(write(path, "x"), InvalidArgument) << path;
  }
  EXPECT_THROW(write(folder / "missing/a", "x"), IoError);
  EXPECT_THROW(write(folder / std::string(300, 'n'), "x"), IoError);
  EXPECT_TRUE(folder.names().empty());
}

TEST(DurableFile, ShortWritesAndInterruptionsAreContinued) {
  const TemporaryFolder folder;
  const std::string text(1000, 'x');
  SyscallFault::current().arm(Action::shorten, -1);
  write(folder / "short", text);
  SyscallFault::current().arm(Action::fail, 1, EINTR);
  write(folder / "interrupted", text);
  SyscallFault::current().disarm();
  EXPECT_EQ(text_at(folder / "short"), text);
  EXPECT_EQ(text_at(folder / "interrupted"), text);
}

// Every system call in turn fails: openat, pwrite, fsync, rename; only a failed fsync of the folder comes too
// late.
TEST(DurableFile, AnyFailedCallLeavesTheOldFileAndNoTemporary) {
  for (const IfExists if_exists : {IfExists::refuse, IfExists::replace}) {
    for (const int error : {EIO, ENOSPC, EROFS, EDQUOT}) {
      for (int call = 0; call < 5; ++call) {
        const TemporaryFolder folder;
        if (if_exists == IfExists::replace) write(folder / "a", "old");
        SyscallFault& fault = SyscallFault::current();
        fault.arm(Action::fail, call, error);
        EXPECT_THROW(write(folder / "a", "new", if_exists), IoError) << call;
        const int fsyncs = fault.fsyncs;
        fault.disarm();
        EXPECT_EQ(fsyncs, call < 2 ? 0 : call < 4 ? 1 : 2) << "no fsync is tried twice";
        const bool visible = call == 4;
        const bool stands = visible || if_exists == IfExists::replace;
        EXPECT_EQ(folder.names().size(), stands ? 1u : 0u) << call;
        EXPECT_EQ(text_at(folder / "a"), visible ? "new" : stands ? "old" : "") << call;
      }
    }
  }
}

TEST(DurableFile, KillBeforeAnyCallLeavesTheOldOrTheNewFile) {
  const TemporaryFolder folder;
  int kills = 0;
  for (int call = 0;; ++call) {
    write(folder / "a", "old", IfExists::replace);
    const pid_t child = ::fork();
    if (child == 0) {
      SyscallFault::current().arm(Action::kill, call);
      write(folder / "a", "new", IfExists::replace);
      ::_exit(0);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    if (!WIFSIGNALED(status)) break;
    ++kills;
    EXPECT_EQ(text_at(folder / "a"), call < 4 ? "old" : "new") << call;
  }
  EXPECT_EQ(kills, 5);
}

TEST(DurableFile, FileSizeLimitIsAnErrorAndCleansUp) {
  const TemporaryFolder folder;
  rlimit before;
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit tight{1000, before.rlim_max};
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &tight), 0);
  const std::string text = thrown<IoError>([&] { write(folder / "a", std::string(1001, 'x')); });
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, old_handler);
  EXPECT_NE(text.find("File too large"), text.npos) << text;
  EXPECT_TRUE(folder.names().empty());
}

TEST(DurableFile, FullDiskIsAnErrorAndCleansUp) {
  const TemporaryFolder folder;
  std::filesystem::create_directory(folder / "disk");
  if (::mount("none", (folder / "disk").c_str(), "tmpfs", 0, "size=64k") != 0) {
    GTEST_SKIP() << "SKIPPED: mounting a small tmpfs needs privileges";
  }
  const std::string text = thrown<IoError>([&] { write(folder / "disk/a", std::string(1 << 20, 'x')); });
  EXPECT_NE(text.find("No space"), text.npos) << text;
  EXPECT_TRUE(std::filesystem::is_empty(folder / "disk"));
  write(folder / "disk/a", "fits after freeing");
  EXPECT_EQ(::umount((folder / "disk").c_str()), 0);
}

TEST(ReadAt, StopsAtTheEndOfTheFile) {
  const TemporaryFolder folder;
  write(folder / "a", "abcdef");
  const Descriptor file(::open((folder / "a").c_str(), O_RDONLY));
  Bytes out(3);
  EXPECT_TRUE(read_at(file.get(), 3, out, "a"));
  EXPECT_EQ(out, bytes_of("def"));
  EXPECT_FALSE(read_at(file.get(), 4, out, "a"));
  EXPECT_THROW(read_at(-1, 0, out, "a"), IoError);
}

// Attack 24: the second fsync would report success on pages that the first one lost.
TEST(DurableFile, AFailedWriteOrFsyncPoisonsTheFile) {
  const TemporaryFolder folder;
  for (int call : {0, 1}) {  // pwrite, fsync
    DurableFile file(folder / "a", IfExists::refuse);
    SyscallFault::current().arm(Action::fail, call, EIO);
    EXPECT_THROW(
        {
          file.write_at(0, text_bytes("abc"));
          file.publish();
        },
        IoError);
    EXPECT_THROW(file.publish(), InvalidState);
    EXPECT_EQ(SyscallFault::current().fsyncs, call);
    SyscallFault::current().disarm();
    EXPECT_FALSE(std::filesystem::exists(folder / "a"));
  }
  EXPECT_TRUE(folder.names().empty());
}

}  // namespace
}  // namespace hushgrad
