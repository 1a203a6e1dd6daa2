// A keyring file.
#include "dpcore/keys/keyring.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "dpcore/keys/kdf.h"
#include "fuzz/fuzzing.h"

using namespace hushgrad;

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string path = "/tmp/hushgrad_fuzz_keyring_" + std::to_string(::getpid());
  const auto write = [&](const std::string& text) {
    ::unlink(path.c_str());
    const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (::write(file, text.data(), text.size()) != static_cast<ssize_t>(text.size())) std::abort();
    ::close(file);
    fuzzing::guarded([&] { Keyring::open(path).list(); });
  };
  const std::string text(reinterpret_cast<const char*>(data), size);
  write(text);
  write(text + "sha384 " + to_hex(sha384(text_bytes(text))) + "\n");  // or nothing behind the digest is reached
  ::unlink(path.c_str());
  return 0;
}
