// Stands between a client and a PostgreSQL server on a socket, understands where one message of the protocol ends and the next
// begins, and cuts the line before, within or after one of them.
#pragma once

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>

namespace hushgrad::ledger_test {

enum class Cut { before, within, after };

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

  /// Message number `message` from now on (0 is the next), of whichever side and connection, is cut once; later connections pass.
  void cut_at(std::int64_t message, Cut how) {
    how_ = how;
    cut_at_ = messages + message;
  }
  /// The next COMMIT that passes is the last thing that passes.
  std::atomic<bool> cut_after_commit{false};
  std::atomic<int> cuts{0};
  std::atomic<std::int64_t> messages{0};  // that came, of both sides

 private:
  // One direction: bytes that came and are no whole message yet.
  struct Direction {
    int from, to;
    bool is_client, has_begun = false;  // the first message of a client has a length and no type
    std::string bytes = {};

    // How long the message at the front is; 0 while that is not known or it is not whole.
    std::size_t whole() const {
      const std::size_t type = is_client && !has_begun ? 0 : 1;
      if (bytes.size() < type + 4) return 0;
      std::uint32_t length = 0;
      for (std::size_t i = 0; i < 4; ++i) length = length << 8 | static_cast<unsigned char>(bytes[type + i]);
      return bytes.size() < type + length ? 0 : type + length;
    }
  };

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
    Direction directions[] = {{client, server, true}, {server, client, false}};
    while (!stop_) {
      pollfd waits[] = {{client, POLLIN, 0}, {server, POLLIN, 0}};
      if (poll(waits, 2, 50) < 1) continue;
      for (int side = 0; side < 2; ++side) {
        if ((waits[side].revents & (POLLIN | POLLHUP)) == 0) continue;
        char buffer[1 << 16];
        const ssize_t got = read(waits[side].fd, buffer, sizeof buffer);
        if (got <= 0) return;
        directions[side].bytes.append(buffer, static_cast<std::size_t>(got));
        if (!pass_on(directions[side])) return;
      }
    }
  }

  // Every whole message that came. False when the line is cut.
  bool pass_on(Direction& direction) {
    while (const std::size_t size = direction.whole()) {
      const std::string message = direction.bytes.substr(0, size);
      direction.bytes.erase(0, size);
      const bool is_cut = messages++ == cut_at_;
      if (is_cut) ++cuts;
      const std::size_t passes = !is_cut || how_ == Cut::after ? size : how_ == Cut::within ? size / 2 : 0;
      if (passes > 0 && send(direction.to, message.data(), passes, MSG_NOSIGNAL) != static_cast<ssize_t>(passes)) return false;
      direction.has_begun = true;
      if (is_cut) return false;
      const bool commits = direction.is_client && message.size() > 5 && message.compare(5, 6, "COMMIT") == 0;
      if (commits && cut_after_commit.exchange(false)) {
        ++cuts;
        usleep(200'000);  // long enough for the server to do it
        return false;
      }
    }
    return true;
  }

  std::string server_, path_;
  int listener_ = -1;
  std::atomic<std::int64_t> cut_at_{-1};
  std::atomic<Cut> how_{Cut::after};
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace hushgrad::ledger_test
