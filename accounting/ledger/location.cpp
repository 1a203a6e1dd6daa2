#include "accounting/ledger/location.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string_view>

#include "accounting/ledger/chain.h"
#include "dpcore/error.h"

namespace hushgrad::ledger {
namespace {

struct RemoteFileSystem {
  std::uint32_t magic;
  const char* name;
};

// The numbers without a name in linux/magic.h come from the file systems' own sources.
constexpr RemoteFileSystem kRemote[] = {
    {NFS_SUPER_MAGIC, "NFS"},       {SMB_SUPER_MAGIC, "SMB"},    {0xff534d42, "CIFS"},       {0xfe534d42, "SMB 2"},
    {AFS_SUPER_MAGIC, "AFS"},       {AFS_FS_MAGIC, "AFS"},       {CODA_SUPER_MAGIC, "Coda"}, {NCP_SUPER_MAGIC, "NCP"},
    {V9FS_MAGIC, "9P"},             {0x00c36400, "Ceph"},        {0x0bd00bd0, "Lustre"},     {0x47504653, "GPFS"},
    {OCFS2_SUPER_MAGIC, "OCFS2"},   {0x01161970, "GFS2"},        {0x19830326, "BeeGFS"},     {0x65735546, "FUSE"},
};

[[noreturn]] void fail(const std::string& expected, const std::string& path) {
  throw IoError(message("[ledger] Expected ", expected, ", received '", path, "': ", std::strerror(errno),
                        ". Check the path, its permissions and the disk."));
}

std::uint32_t file_system_of(const std::string& path) {
  struct statfs status{};
  if (statfs(path.c_str(), &status) != 0) fail("a file system that answers", path);
  return static_cast<std::uint32_t>(status.f_type);
}

void refuse_remote(std::uint32_t magic, const std::string& path) {
  const char* remote = remote_file_system(magic);
  if (remote == nullptr) return;
  throw LedgerError(message("[ledger] Expected a ledger on a local disk, received '", path, "' on ", remote,
                            ". Its locks or syncs may not hold, and a lost commit gives budget back: put the ledger on "
                            "a local file system."));
}

std::string resolve_folder(const std::string& path) {
  const auto slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
  const std::unique_ptr<char, decltype(&std::free)> resolved(realpath(folder.c_str(), nullptr), &std::free);
  if (!resolved) fail("a folder for the ledger", folder);
  return resolved.get();
}

void sync_folder_of(const std::string& path) {
  const std::string folder = path.substr(0, path.rfind('/') + 1);
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) fail("a folder that can be opened", folder);
  const int synced = fsync(descriptor);
  ::close(descriptor);
  if (synced != 0) fail("a folder that can be synced", folder);
}

}  // namespace

const char* remote_file_system(std::uint32_t magic) {
  for (const auto& remote : kRemote) {
    if (remote.magic == magic) return remote.name;
  }
  return nullptr;
}

Location locate(const std::string& path) {
  if (path == ":memory:") return {path, true, false};
  if (path.empty() || path.find('\0') != std::string::npos || path.back() == '/') {
    throw InvalidArgument("[ledger] Expected the path of a file, received an empty one, a folder, or one with a NUL. "
                          "Give a path such as hushgrad.ledger.db.");
  }
  std::string folder = resolve_folder(path);
  const std::uint32_t magic = file_system_of(folder);
  refuse_remote(magic, path);
  if (folder.back() != '/') folder.push_back('/');
  const bool volatile_memory = magic == TMPFS_MAGIC || magic == RAMFS_MAGIC;
  return {folder + path.substr(path.rfind('/') + 1), false, !volatile_memory};
}

bool is_ledger_file(const std::string& path) {
  struct stat status{};
  if (lstat(path.c_str(), &status) != 0) {
    if (errno == ENOENT) return false;
    fail("a ledger that can be looked at", path);
  }
  if (!S_ISREG(status.st_mode) || status.st_nlink != 1) {
    throw LedgerError(message("[ledger] Expected a regular file with one name, received '", path, "', ",
                              S_ISREG(status.st_mode) ? "which has several names (hard links)"
                              : S_ISLNK(status.st_mode) ? "a symbolic link" : "something else",
                              ". Give the path of the ledger itself."));
  }
  if (status.st_size == 0) {
    throw LedgerError(message("[ledger] Expected a ledger, received '", path,
                              "', an empty file. If a ledger was there it was cut off: restore a copy that verifies. "
                              "If not, remove the file."));
  }
  refuse_remote(file_system_of(path), path);
  return true;
}

FileIdentity identify(const std::string& path) {
  struct stat status{};
  if (lstat(path.c_str(), &status) != 0) {
    throw LedgerError(message("[ledger] Expected the ledger to stay where it was opened, received no file at '", path,
                              "'. Put it back and open it again; what was charged counts as spent."));
  }
  return {status.st_dev, status.st_ino};
}

std::string make_sibling(const std::string& path) {
  for (const char* suffix : {"-journal", "-wal"}) {
    if (access((path + suffix).c_str(), F_OK) != 0) continue;
    throw LedgerError(message("[ledger] Expected no left-over of an older ledger beside a new one, received '", path,
                              suffix, "'. It belongs to a ledger that was moved away: put that back, do not start anew."));
  }
  const std::string sibling = path + ".new-" + random_id();
  const int descriptor = ::open(sibling.c_str(), O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC | O_RDWR, 0600);
  if (descriptor < 0) fail("a folder in which a ledger can be made", sibling);
  ::close(descriptor);
  return sibling;
}

bool publish(const std::string& sibling, const std::string& path) {
  if (renameat2(AT_FDCWD, sibling.c_str(), AT_FDCWD, path.c_str(), RENAME_NOREPLACE) != 0) {
    const int error = errno;
    ::unlink(sibling.c_str());
    if (error == EEXIST) return false;
    errno = error;
    fail("a file system that can name a new ledger", path);
  }
  sync_folder_of(path);
  return true;
}

}  // namespace hushgrad::ledger
