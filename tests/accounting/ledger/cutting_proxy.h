// Stands between a client and a PostgreSQL server on a socket, and cuts the line right after a COMMIT was handed on: the
// server commits, the client never hears of it.
#pragma once

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <thread>

namespace hushgrad::ledger_test {

class CuttingProxy {
 public:
  /// Listens in `folder` under the name that libpq expects, and hands on to the socket `server`.
  CuttingProxy(const std::string& folder, const std::string& server) : server_(server), path_(folder + "/.s.PGSQL.5432") {
    listener_ = socket(AF_UNIX, SOCK_STREAM, 0);
    const sockaddr_un address = address_of(path_);
    if (bind(listener_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 || listen(listener_, 8) != 0) std::abort();
    thread_ = std::thread([this] { serve(); });
  }
  ~CuttingProxy() {
    stop_ = true;
    thread_.join();
    close(listener_);
    unlink(path_.c_str());
  }
  CuttingProxy(const CuttingProxy&) = delete;
  CuttingProxy& operator=(const CuttingProxy&) = delete;

  /// The next COMMIT that passes is the last thing that passes.
  std::atomic<bool> cut_after_commit{false};
  std::atomic<int> cuts{0};

 private:
  static sockaddr_un address_of(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
    return address;
  }

  void serve() {
    while (!stop_) {
      pollfd waits{listener_, POLLIN, 0};
      if (poll(&waits, 1, 50) != 1) continue;
      const int client = accept(listener_, nullptr, nullptr);
      const int server = socket(AF_UNIX, SOCK_STREAM, 0);
      const sockaddr_un address = address_of(server_);
      if (connect(server, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) relay(client, server);
      close(client);
      close(server);
    }
  }

  void relay(int client, int server) {
    char bytes[1 << 16];
    while (!stop_) {
      pollfd waits[] = {{client, POLLIN, 0}, {server, POLLIN, 0}};
      if (poll(waits, 2, 50) < 1) continue;
      for (int from = 0; from < 2; ++from) {
        if ((waits[from].revents & (POLLIN | POLLHUP)) == 0) continue;
        const ssize_t got = read(waits[from].fd, bytes, sizeof bytes);
        if (got <= 0 || write(waits[1 - from].fd, bytes, static_cast<std::size_t>(got)) != got) return;
        const bool commits = from == 0 && std::string_view(bytes, static_cast<std::size_t>(got)).find(std::string_view("COMMIT\0", 7)) != std::string_view::npos;
        if (commits && cut_after_commit.exchange(false)) {
          ++cuts;
          usleep(200'000);  // long enough for the server to do it
          return;
        }
      }
    }
  }

  std::string server_, path_;
  int listener_ = -1;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace hushgrad::ledger_test
