#include "dpcore/keys/durable_file.h"

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dpcore/error.h"
#include "dpcore/keys/bytes.h"
#include "dpcore/keys/secret_bytes.h"

namespace hushgrad {
namespace {

struct Split {
  std::string folder, name;
};

Split split(const std::string& path) {
  const auto slash = path.find_last_of('/');
  Split parts;
  parts.name = slash == std::string::npos ? path : path.substr(slash + 1);
  parts.folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const bool has_nul = path.find('\0') != std::string::npos;
  if (parts.name.empty() || parts.name == "." || parts.name == ".." || has_nul) {
    throw InvalidArgument(
        "[durable_file] Expected a path that ends in a file name, received one that does not.");
  }
  return parts;
}

std::string temporary_name() {
  std::array<std::byte, 16> random;
  fill_random(random);
  std::string name(".");
  name += to_hex(random);
  name += ".hgtmp";
  return name;
}

}  // namespace

DurableFile::DurableFile(const std::string& path, IfExists if_exists)
    : path_(path), name_(split(path).name), temporary_(temporary_name()), if_exists_(if_exists) {
  folder_ = ::open(split(path).folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder_ < 0) fail("open the folder of");
  try {
    refuse_target();
    file_ = ::openat(folder_, temporary_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (file_ < 0) fail("create a temporary file beside");
  } catch (...) {
    ::close(folder_);  // the destructor does not run for an object that was not built
    throw;
  }
  pending_ = true;
}

DurableFile::~DurableFile() {
  if (pending_) ::unlinkat(folder_, temporary_.c_str(), 0);
  if (file_ >= 0) ::close(file_);
  if (folder_ >= 0) ::close(folder_);
}

void DurableFile::fail(const char* step) const {
  failed_ = true;
  throw IoError(message("[durable_file] Expected to ", step, " ", path_, ", received: ", std::strerror(errno),
                        ". Check the path, its permissions and the free space."));
}

void DurableFile::refuse_target() const {
  struct stat status;
  if (::fstatat(folder_, name_.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) {
    if (errno == ENOENT) return;
    fail("examine");
  }
  if (if_exists_ == IfExists::refuse) {
    throw IoError(message("[durable_file] Expected nothing at ", path_,
                          ", received something that exists. Choose another name or ask to replace it."));
  }
  if (!S_ISREG(status.st_mode)) {
    throw IoError(message("[durable_file] Expected a regular file to replace at ", path_,
                          ", received a link, folder or device. Give the path of the file itself."));
  }
}

void DurableFile::write_at(std::uint64_t offset, std::span<const std::byte> bytes) {
  if (!hushgrad::write_at(file_, offset, bytes)) fail("write");
}

// Without SYNC_FILE_RANGE_WAIT_* this neither waits nor takes a write error from the fsync that has to see it.
void DurableFile::begin_writeback(std::uint64_t offset, std::uint64_t size) {
  ::sync_file_range(file_, static_cast<off_t>(offset), static_cast<off_t>(size), SYNC_FILE_RANGE_WRITE);
}

void DurableFile::forget_replaced() const {
  if (if_exists_ == IfExists::refuse) return;
  const Descriptor old(::openat(folder_, name_.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (old.get() >= 0) ::posix_fadvise(old.get(), 0, 0, POSIX_FADV_DONTNEED);
}

void DurableFile::publish() {
  if (!pending_ || failed_) {
    throw InvalidState(
        "[durable_file] Expected a file that is neither published nor failed, received one that is. Write a new one.");
  }
  if (::fsync(file_) != 0) fail("fsync");
  if (if_exists_ == IfExists::refuse) {
    rename_without_replacing();
  } else {
    refuse_target();
    if (::renameat(folder_, temporary_.c_str(), folder_, name_.c_str()) != 0) fail("rename to");
  }
  pending_ = false;
  if (::fsync(folder_) != 0) fail("fsync the folder of");
}

void DurableFile::rename_without_replacing() {
  if (::renameat2(folder_, temporary_.c_str(), folder_, name_.c_str(), RENAME_NOREPLACE) == 0) return;
  if (errno != EINVAL && errno != ENOSYS) fail("rename to");
  // Some network and overlay file systems lack the flag; a hard link refuses an existing name just as
  // atomically.
  if (::linkat(folder_, temporary_.c_str(), folder_, name_.c_str(), 0) != 0) fail("link to");
  ::unlinkat(folder_, temporary_.c_str(), 0);
}

void sync_folder_of(const std::string& path) {
  const Descriptor folder(::open(split(path).folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder.get() < 0 || ::fsync(folder.get()) != 0) {
    throw IoError(message("[durable_file] Expected to fsync the folder of ", path, ", received: ", std::strerror(errno),
                          "."));
  }
}

bool write_at(int descriptor, std::uint64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::pwrite(descriptor, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    bytes = bytes.subspan(static_cast<std::size_t>(written));
    offset += static_cast<std::uint64_t>(written);
  }
  return true;
}

bool read_at(int descriptor, std::uint64_t offset, std::span<std::byte> out, const std::string& path) {
  while (!out.empty()) {
    const ssize_t count = ::pread(descriptor, out.data(), out.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      throw IoError(
          message("[durable_file] Expected to read ", path, ", received: ", std::strerror(errno), "."));
    }
    if (count == 0) return false;
    out = out.subspan(static_cast<std::size_t>(count));
    offset += static_cast<std::uint64_t>(count);
  }
  return true;
}

Descriptor::~Descriptor() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

}  // namespace hushgrad
