#include "dpcore/keys/pkcs11_client.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <utility>

#include "dpcore/error.h"

extern char** environ;

namespace hushgrad::pkcs11 {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr const char* kHelper = "hushgrad_pkcs11_helper";

// Beside this library, where a wheel and a build tree put it, or in libexec of an installation.
std::string helper_path() {
  if (const char* named = std::getenv("HUSHGRAD_PKCS11_HELPER")) return named;
  Dl_info self{};
  ::dladdr(reinterpret_cast<void*>(&helper_path), &self);
  const fs::path folder = fs::absolute(self.dli_fname).parent_path();
  for (const fs::path& path : {folder / kHelper, folder.parent_path() / "libexec/hushgrad" / kHelper,
                               folder.parent_path().parent_path() / "libexec/hushgrad" / kHelper}) {
    if (fs::exists(path)) return path;
  }
  throw IoError(message("[pkcs11] Expected the program ", kHelper, " beside the libraries of hushgrad, received none. "
                        "Install hushgrad anew, or name it in HUSHGRAD_PKCS11_HELPER."));
}

// Milliseconds that are left, at least 0.
int left(Clock::time_point end) {
  const auto rest = std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now()).count();
  return rest < 0 ? 0 : static_cast<int>(rest);
}

bool ready(int socket, short events, Clock::time_point end) {
  pollfd waiting{socket, events, 0};
  int found = 0;
  do {
    found = ::poll(&waiting, 1, left(end));
  } while (found < 0 && errno == EINTR && left(end) > 0);
  return found > 0;
}

bool send_all(int socket, const std::string& text, Clock::time_point end) {
  for (std::size_t done = 0; done < text.size();) {
    if (!ready(socket, POLLOUT, end)) return false;
    const ssize_t count = ::send(socket, text.data() + done, text.size() - done, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (count <= 0) return false;
    done += static_cast<std::size_t>(count);
  }
  return true;
}

bool receive_all(int socket, std::string& out, std::size_t size, Clock::time_point end) {
  out.assign(size, '\0');
  for (std::size_t done = 0; done < size;) {
    if (!ready(socket, POLLIN, end)) return false;
    const ssize_t count = ::recv(socket, out.data() + done, size - done, MSG_DONTWAIT);
    if (count < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (count <= 0) return false;
    done += static_cast<std::size_t>(count);
  }
  return true;
}

}  // namespace

Client::Client(std::string module, std::string token, SecretBytes pin, int seconds)
    : module_(std::move(module)), token_(std::move(token)), pin_(std::move(pin)), seconds_(seconds) {
  if (seconds < 1 || seconds > 600) {
    throw InvalidArgument(message("[pkcs11] Expected a timeout of 1..600 seconds, received ", seconds, "."));
  }
}

Client::~Client() { stop(); }

void Client::stop() noexcept {
  if (socket_ >= 0) ::close(socket_);
  // After fork() the helper is the parent's, and so is its end.
  if (helper_ > 0 && owner_ == ::getpid()) {
    ::kill(helper_, SIGKILL);
    while (::waitpid(helper_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
  socket_ = -1;
  helper_ = 0;
}

void Client::fail(const std::string& text) {
  stop();
  throw KeyError("[pkcs11] " + text + " Nothing was used in its place.");
}

void Client::start() {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    throw IoError(message("[pkcs11] Expected a socket for the helper, received: ", std::strerror(errno), "."));
  }
  const std::string path = helper_path();
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  if (ends[1] == kHelperSocket) {
    ::fcntl(ends[1], F_SETFD, 0);  // dup2 onto itself would leave it to be closed
  } else {
    ::posix_spawn_file_actions_adddup2(&actions, ends[1], kHelperSocket);
  }
  char* const arguments[] = {const_cast<char*>(path.c_str()), nullptr};
  const int error = ::posix_spawn(&helper_, path.c_str(), &actions, nullptr, arguments, environ);
  ::posix_spawn_file_actions_destroy(&actions);
  ::close(ends[1]);
  if (error != 0) {
    ::close(ends[0]);
    helper_ = 0;
    throw IoError(message("[pkcs11] Expected to start ", path, ", received: ", std::strerror(error), "."));
  }
  socket_ = ends[0];
  owner_ = ::getpid();
  const std::span<const std::byte> pin = pin_.bytes();
  Message open{"open", module_, token_, std::string(reinterpret_cast<const char*>(pin.data()), pin.size())};
  try {
    exchange(open);
    wipe(open);
  } catch (...) {
    wipe(open);
    stop();
    throw;
  }
}

Message Client::exchange(const Message& request) {
  const auto end = Clock::now() + std::chrono::seconds(seconds_);
  std::string text = encoded(request), head, body;
  const bool sent = send_all(socket_, text, end);
  wipe(text);
  if (!sent || !receive_all(socket_, head, 4, end) || number_at(head, 0) > kMaxMessage ||
      !receive_all(socket_, body, number_at(head, 0), end)) {
    fail(left(end) == 0 ? message("Expected an answer of the token within ", seconds_, " s, received none; its helper was "
                                  "stopped.")
                        : std::string("Expected an answer of the token, received the end of its helper: the module "
                                      "crashed."));
  }
  Message answer;
  const bool decoded = decode(body, answer);
  wipe(body);
  if (!decoded) fail("Expected an answer of the helper, received something else.");
  if (answer[0] == "ok") {
    answer.erase(answer.begin());
    return answer;
  }
  const std::string why = answer.size() > 1 ? answer[1] : "";
  if (answer[0] == "seal") throw SealError("[pkcs11] " + why);
  if (answer[0] == "key") throw KeyError("[pkcs11] " + why);
  if (answer[0] == "pin") refused_ = true;
  fail(why);  // the session may be gone: the next call begins anew
}

Message Client::ask(Message request) {
  const std::lock_guard lock(mutex_);
  if (refused_) {
    throw KeyError("[pkcs11] Expected a PIN that the token accepts, received one that it refused. Open the token anew with "
                   "the right PIN; more tries here would lock it.");
  }
  if (socket_ >= 0 && owner_ != ::getpid()) stop();
  if (socket_ < 0) start();
  try {
    Message answer = exchange(request);
    wipe(request);
    return answer;
  } catch (...) {
    wipe(request);
    throw;
  }
}

}  // namespace hushgrad::pkcs11
