#include "dpcore/sealed/archive_folder.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dpcore/error.h"
#include "dpcore/keys/bytes.h"
#include "dpcore/keys/secret_bytes.h"

namespace hushgrad {
namespace {

constexpr int kFolder = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
constexpr int kFile = O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK;

[[noreturn]] void fail(const char* where, const char* step, const std::string& path) {
  throw IoError(message("[", where, "] Expected to ", step, " ", path, ", received: ", std::strerror(errno),
                        ". Check the path, its permissions and the free space."));
}

// The folder that holds the last part of `path`, walked part by part, so that no link on the way is followed.
Descriptor folder_of(int root, const std::string& path, const char* where) {
  Descriptor folder(::fcntl(root, F_DUPFD_CLOEXEC, 0));
  std::size_t begin = 0;
  for (std::size_t end = path.find('/'); end != path.npos; begin = end + 1, end = path.find('/', begin)) {
    folder = Descriptor(::openat(folder.get(), path.substr(begin, end - begin).c_str(), kFolder));
    if (folder.get() < 0) fail(where, "open the folder of", path);
  }
  if (folder.get() < 0) fail(where, "open the folder of", path);
  return folder;
}

std::string last_part(const std::string& path) {
  const auto slash = path.rfind('/');
  return slash == path.npos ? path : path.substr(slash + 1);
}

std::int64_t nanoseconds(const timespec& time) { return time.tv_sec * std::int64_t{1'000'000'000} + time.tv_nsec; }

[[noreturn]] void refuse(const std::string& path, const char* what) {
  throw InvalidArgument(message("[seal] Expected regular files and folders, received ", path, ", which ", what,
                                ". Remove it, or seal a copy without it."));
}

void check_kind(const struct stat& status, const std::string& path) {
  if (S_ISLNK(status.st_mode)) refuse(path, "is a symbolic link");
  if (!S_ISREG(status.st_mode)) refuse(path, "is a FIFO, socket or device");
  if (status.st_nlink > 1) refuse(path, "has a second name (a hard link)");
  if ((status.st_mode & (S_ISUID | S_ISGID | S_ISVTX)) != 0) refuse(path, "has a setuid, setgid or sticky bit");
}

bool is_plain_name(const std::string& name) {
  return std::none_of(name.begin(), name.end(), [](unsigned char c) { return c < 0x20 || c == 0x7F; });
}

std::vector<std::string> names_in(int folder, const std::string& path) {
  const int copy = ::openat(folder, ".", kFolder);
  const std::unique_ptr<DIR, int (*)(DIR*)> open(copy < 0 ? nullptr : ::fdopendir(copy), ::closedir);
  if (!open) {
    const Descriptor closed(copy);
    fail("seal", "list", path);
  }
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = ::readdir(open.get())) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
  }
  if (errno != 0) fail("seal", "list", path);
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

SourceFolder::SourceFolder(const std::string& path) {
  if (path.empty() || path.find('\0') != path.npos) {
    throw InvalidArgument("[seal] Expected the path of a file or folder, received an empty one or one with NUL.");
  }
  struct stat status;
  if (::lstat(path.c_str(), &status) != 0) fail("seal", "examine", path);
  is_folder_ = S_ISDIR(status.st_mode);
  if (is_folder_) {
    root_ = Descriptor(::open(path.c_str(), kFolder));
    if (root_.get() < 0) fail("seal", "open", path);
    add_folder(root_.get(), "", 0);
  } else {
    const auto slash = path.rfind('/');
    root_ = Descriptor(::open(slash == path.npos ? "." : path.substr(0, slash + 1).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (root_.get() < 0) fail("seal", "open the folder of", path);
    add_file(root_.get(), last_part(path), last_part(path));
  }
}

void SourceFolder::add_file(int folder, const std::string& name, const std::string& path) {
  struct stat status;
  if (::fstatat(folder, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) fail("seal", "examine", path);
  check_kind(status, path);
  const auto bytes = static_cast<std::uint64_t>(status.st_size);
  contents_.files.push_back({path, bytes, (status.st_mode & S_IXUSR) != 0, status.st_ino, nanoseconds(status.st_mtim), size_});
  size_ += bytes;
}

void SourceFolder::add_folder(int folder, const std::string& path, std::size_t depth) {
  if (depth >= kMaxArchiveDepth) refuse(path, "lies more than 64 folders deep");
  for (const std::string& name : names_in(folder, path)) {
    const std::string inside = path.empty() ? name : path + "/" + name;
    if (!is_plain_name(name)) refuse(path.empty() ? "." : path, "holds a name with control characters");
    struct stat status;
    if (::fstatat(folder, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) fail("seal", "examine", inside);
    if (!S_ISDIR(status.st_mode)) {
      add_file(folder, name, inside);
      continue;
    }
    const Descriptor sub(::openat(folder, name.c_str(), kFolder));
    if (sub.get() < 0) fail("seal", "open", inside);
    contents_.folders.push_back(inside);
    add_folder(sub.get(), inside, depth + 1);
  }
}

void SourceFolder::read(const FolderContents::File& file, std::uint64_t offset, std::span<std::byte> out) const {
  const Descriptor folder = folder_of(root_.get(), file.path, "seal");
  const Descriptor open(::openat(folder.get(), last_part(file.path).c_str(), kFile));
  if (open.get() < 0) fail("seal", "open", file.path);
  const bool complete = read_at(open.get(), offset, out, file.path);
  struct stat status;
  if (::fstat(open.get(), &status) != 0) fail("seal", "examine", file.path);
  if (complete && status.st_ino == file.inode && static_cast<std::uint64_t>(status.st_size) == file.bytes &&
      nanoseconds(status.st_mtim) == file.changed && S_ISREG(status.st_mode)) {
    return;
  }
  throw IoError(message("[seal] Expected ", file.path, " to stay as it is while it is sealed, received changes. Seal it again."));
}

std::span<const std::byte> SourceFolder::get(std::uint64_t offset, std::size_t size, std::span<std::byte> room) const {
  const auto out = room.first(size);
  // The last file that begins at or before `offset`; empty files before it share its beginning.
  auto file = std::upper_bound(contents_.files.begin(), contents_.files.end(), offset,
                               [](std::uint64_t at, const FolderContents::File& f) { return at < f.begin; }) - 1;
  for (std::size_t done = 0; done < size; ++file) {
    const std::uint64_t from = offset + done - file->begin;
    const auto count = static_cast<std::size_t>(std::min<std::uint64_t>(file->bytes - std::min(from, file->bytes), size - done));
    if (count > 0) read(*file, from, out.subspan(done, count));
    done += count;
  }
  return out;
}

NewFolder::NewFolder(const std::string& path, IfExists if_exists) : path_(path), if_exists_(if_exists) {
  while (path_.size() > 1 && path_.back() == '/') path_.pop_back();
  name_ = last_part(path_);
  if (name_.empty() || name_ == "." || name_ == ".." || path.find('\0') != path.npos) {
    throw InvalidArgument("[open_archive] Expected a path that ends in the name of a folder, received one that does not.");
  }
  const auto slash = path_.rfind('/');
  const std::string parent = slash == path_.npos ? "." : path_.substr(0, slash + 1);
  parent_ = Descriptor(::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (parent_.get() < 0) fail("open_archive", "open the folder of", path_);
  struct stat status;
  if (::fstatat(parent_.get(), name_.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0) {
    if (if_exists_ == IfExists::refuse) {
      throw IoError(message("[open_archive] Expected nothing at ", path_,
                            ", received something that exists. Choose another name or ask to replace it."));
    }
    if (!S_ISDIR(status.st_mode)) {
      throw IoError(message("[open_archive] Expected a folder to replace at ", path_,
                            ", received something else. Give the path of the folder itself."));
    }
  } else if (errno != ENOENT) {
    fail("open_archive", "examine", path_);
  } else {
    if_exists_ = IfExists::refuse;  // nothing to replace
  }
  std::array<std::byte, 16> random;
  fill_random(random);
  temporary_ = "." + to_hex(random) + ".hgtmp";
  if (::mkdirat(parent_.get(), temporary_.c_str(), 0700) != 0) fail("open_archive", "make a folder beside", path_);
  pending_ = true;
  root_ = Descriptor(::openat(parent_.get(), temporary_.c_str(), kFolder));
  if (root_.get() < 0) {
    remove();
    fail("open_archive", "open the new folder beside", path_);
  }
}

NewFolder::~NewFolder() {
  if (pending_) remove();
}

// The names inside are ours alone: the folder was made by this process with mode 0700.
bool NewFolder::remove() {
  std::error_code error;
  const std::string folder = "/proc/self/fd/" + std::to_string(parent_.get()) + "/" + temporary_;
  std::filesystem::remove_all(folder, error);
  return !error;
}

void NewFolder::make_folder(const std::string& path) {
  const Descriptor folder = folder_of(root_.get(), path, "open_archive");
  if (::mkdirat(folder.get(), last_part(path).c_str(), 0700) != 0) fail("open_archive", "make", path);
  folders_.push_back(path);
}

NewFolder::File NewFolder::make_file(const std::string& path, bool executable) {
  const Descriptor folder = folder_of(root_.get(), path, "open_archive");
  Descriptor file(::openat(folder.get(), last_part(path).c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                           executable ? 0700 : 0600));
  if (file.get() < 0) fail("open_archive", "create", path);
  return {std::move(file), path};
}

void NewFolder::File::write_at(std::uint64_t offset, std::span<const std::byte> bytes) const {
  while (!bytes.empty()) {
    const ssize_t written = ::pwrite(file_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) fail("open_archive", "write", path_);
    bytes = bytes.subspan(static_cast<std::size_t>(written));
    offset += static_cast<std::uint64_t>(written);
  }
}

void NewFolder::File::finish() const {
  if (::fsync(file_.get()) != 0) fail("open_archive", "fsync", path_);
}

void NewFolder::publish() {
  for (const std::string& path : folders_) {
    const Descriptor folder = folder_of(root_.get(), path + "/", "open_archive");
    if (::fsync(folder.get()) != 0) fail("open_archive", "fsync", path);
  }
  if (::fsync(root_.get()) != 0) fail("open_archive", "fsync", path_);
  const unsigned how = if_exists_ == IfExists::replace ? RENAME_EXCHANGE : RENAME_NOREPLACE;
  if (::renameat2(parent_.get(), temporary_.c_str(), parent_.get(), name_.c_str(), how) != 0) {
    fail("open_archive", "rename to", path_);
  }
  pending_ = false;
  const bool removed = how != RENAME_EXCHANGE || remove();  // the old folder has the temporary name now
  if (::fsync(parent_.get()) != 0) fail("open_archive", "fsync the folder of", path_);
  if (removed) return;
  throw IoError(message("[open_archive] Expected to remove the folder that stood at ", path_, ", and may not remove all of it. The new one "
                        "is in its place, the rest of the old one beside it as ", temporary_, ". Remove that."));
}

}  // namespace hushgrad
