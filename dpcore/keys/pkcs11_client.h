// The helper process of a PKCS#11 token, seen from outside.
#pragma once

#include <sys/types.h>

#include <mutex>
#include <string>

#include "dpcore/keys/pkcs11_wire.h"
#include "dpcore/keys/secret_bytes.h"

namespace hushgrad::pkcs11 {

/// Starts the helper when it is needed, asks, waits for a limited time. A helper that does not answer in time or dies is
/// killed, the call fails, and the next call starts another. A child of fork() starts its own. Safe for concurrent use:
/// one question after the other.
class Client {
 public:
  /// `seconds`: how long one answer may take.
  Client(std::string module, std::string token, SecretBytes pin, int seconds);
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  /// The results, without "ok". KeyError (no such key; the token, the module or the helper failed; the PIN was refused,
  /// and then for good, for repeating it would lock the token), SealError (wrapped bytes not intact), IoError (the helper
  /// cannot be started).
  Message ask(Message request);

 private:
  void start();
  void stop() noexcept;
  Message exchange(const Message& request);
  [[noreturn]] void fail(const std::string& text);

  std::string module_, token_;
  SecretBytes pin_;
  int seconds_;
  std::mutex mutex_;
  pid_t owner_ = 0;  // the process that started the helper
  pid_t helper_ = 0;
  int socket_ = -1;
  bool refused_ = false;
};

}  // namespace hushgrad::pkcs11
