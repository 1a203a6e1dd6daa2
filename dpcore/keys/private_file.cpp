#include "dpcore/keys/private_file.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dpcore/error.h"

namespace hushgrad {
namespace {

constexpr std::size_t kMaxLineBytes = 4096;

SecretBytes first_line(const SecretBytes& text, std::size_t size, const char* what) {
  const auto all = text.bytes().first(size);
  const auto end = std::find_if(all.begin(), all.end(),
                                [](std::byte byte) { return byte == std::byte{'\n'} || byte == std::byte{'\r'}; });
  SecretBytes line(static_cast<std::size_t>(end - all.begin()));
  if (line.size() == 0) {
    throw KeyError(message("[", what, "] Expected a ", what, " on the first line, received an empty line."));
  }
  std::copy(all.begin(), end, line.bytes().begin());
  return line;
}

}  // namespace

Descriptor open_private_file(const std::string& path, const char* what, std::size_t max_bytes) {
  if (path.find('\0') != path.npos) {
    throw InvalidArgument(message("[", what, "] Expected a path without NUL, received one with it."));
  }
  Descriptor file(::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) {
    throw KeyError(message("[", what, "] Expected a readable ", what, " at ", path, ", received: ", std::strerror(errno),
                           ". Give the path of the file itself, not of a link."));
  }
  check_private_file(file.get(), path, what, max_bytes);
  return file;
}

void check_private_file(int descriptor, const std::string& path, const char* what, std::size_t max_bytes) {
  struct stat status;
  if (::fstat(descriptor, &status) != 0) throw IoError(message("[", what, "] Cannot examine ", path, "."));
  if (!S_ISREG(status.st_mode) || status.st_uid != ::geteuid() || (status.st_mode & 077) != 0) {
    throw KeyError(message("[", what, "] Expected ", path,
                           " to be a regular file of the current user with mode 0600, received another owner, kind or "
                           "wider permissions. If nobody else has read it, run chmod 600; otherwise make new keys."));
  }
  if (status.st_size > static_cast<off_t>(max_bytes)) {
    throw KeyError(message("[", what, "] Expected ", path, " to hold at most ", max_bytes, " bytes, received ",
                           status.st_size, "."));
  }
}

SecretBytes read_secret(int descriptor, const std::string& path) {
  struct stat status;
  if (::fstat(descriptor, &status) != 0) throw IoError(message("[secret] Cannot examine ", path, "."));
  SecretBytes text(static_cast<std::size_t>(status.st_size));
  if (!read_at(descriptor, 0, text.bytes(), path)) {
    throw KeyError(message("[secret] Expected ", path, " to keep its length, received a shorter file. Try again."));
  }
  return text;
}

SecretBytes read_private_file(const std::string& path, const char* what, std::size_t max_bytes) {
  return read_secret(open_private_file(path, what, max_bytes).get(), path);
}

SecretBytes read_secret_line(const std::string& path, const char* what) {
  const SecretBytes text = read_private_file(path, what, kMaxLineBytes);
  return first_line(text, text.size(), what);
}

SecretBytes read_secret_line(int descriptor, const char* what) {
  SecretBytes text(kMaxLineBytes);
  std::size_t size = 0;
  while (size < text.size()) {
    const ssize_t count = ::read(descriptor, text.bytes().data() + size, text.size() - size);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw IoError(message("[", what, "] Cannot read it: ", std::strerror(errno), "."));
    if (count == 0) break;
    size += static_cast<std::size_t>(count);
  }
  return first_line(text, size, what);
}

}  // namespace hushgrad
