// A keyring file: as it comes, and with its digest or MAC put right, or nothing behind it is reached.
#include "dpcore/keys/keyring_file.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "dpcore/keys/kdf.h"
#include "dpcore/keys/new_keyring.h"
#include "fuzz/fuzzing.h"

using namespace hushgrad;

namespace {

SecretBytes known_protection(const KeyringProtection&) { return SecretBytes(32); }

// The root of the line before the MAC, where there is one: in clear, or wrapped under known_protection().
std::optional<RootKey> root_in(std::string_view text) {
  const std::size_t at = text.rfind("\nroot ");
  if (at == text.npos || !text.ends_with('\n')) return std::nullopt;
  const std::string_view digits = text.substr(at + 6, text.size() - at - 7);
  SecretBytes stored(digits.size() / 2);
  if (!is_hex(digits, stored.size())) return std::nullopt;
  from_hex(digits, stored.bytes());
  if (stored.size() == 32) return RootKey(std::move(stored));
  auto root = aes256_kwp_unwrap(SecretBytes(32).bytes(), stored.bytes());
  if (!root || root->size() != 32) return std::nullopt;
  return RootKey(std::move(*root));
}

void read(const std::string& text) {
  const std::string path = "/dev/shm/hushgrad_fuzz_keyring_" + std::to_string(::getpid());
  ::unlink(path.c_str());
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (::write(file, text.data(), text.size()) != static_cast<ssize_t>(text.size())) std::abort();
  ::close(file);
  fuzzing::guarded([&] {
    const KeyringContents contents = read_keyring(path, known_protection);
    for (const KeyRecord& key : contents.model.keys) {
      fuzzing::guarded([&] { open_key(contents.model, contents.root, key); });
      contents.model.may_open(key, 0);
    }
    fuzzing::guarded([&] { open_log_key(contents.model, contents.root); });
    keyring_text(contents.model, contents.root, known_protection);  // what was read can be written again
  });
  ::unlink(path.c_str());
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  read(text);
  read(text + "sha384 " + to_hex(sha384(text_bytes(text))) + "\n");
  if (const auto root = root_in(text)) read(text + "hmac-sha384 " + to_hex(root->mac(text_bytes(text))) + "\n");
  return 0;
}
