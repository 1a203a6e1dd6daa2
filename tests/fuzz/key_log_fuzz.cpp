// A key log: as it comes, and with links and signatures put right, or nothing behind the first signature is reached.
#include <fcntl.h>
#include <sys/stat.h>

#include <nlohmann/json.hpp>

#include "dpcore/keys/kdf.h"
#include "dpcore/keys/key_log.h"
#include "fuzz/fuzzing.h"

using namespace hushgrad;

namespace {

using nlohmann::json;

// Nothing where a line is no object: then the log as it comes says as much.
std::string repaired(std::string_view text, const SigningKey& signer) {
  std::string log, previous(96, '0');
  for (std::size_t sequence = 1; !text.empty(); ++sequence) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    json line = json::parse(text.substr(0, end), nullptr, false);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (!line.is_object()) return "";
    line.erase("signature");
    line["sequence"] = sequence;
    line["previous"] = previous;
    const std::string signed_text = line.dump(-1, ' ', false, json::error_handler_t::replace);
    line["signature"] = to_hex(signer.sign("key log", text_bytes(signed_text)));
    const std::string whole = line.dump(-1, ' ', false, json::error_handler_t::replace);
    previous = to_hex(sha384(text_bytes(whole)));
    log += whole + "\n";
  }
  return log;
}

void read(const std::string& text, const SigningKey& signer) {
  const std::string path = "/dev/shm/hushgrad_fuzz_key_log_" + std::to_string(::getpid());
  ::unlink(path.c_str());
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (::write(file, text.data(), text.size()) != static_cast<ssize_t>(text.size())) std::abort();
  ::close(file);
  fuzzing::guarded([&] {
    const KeyLog log = KeyLog::read(path, signer.public_key());
    for (const KeyLogEntry& entry : log.entries()) log.check_holds(entry.sequence, log.hash_at(entry.sequence));
    log.used_nonces();
    fuzzing::demand(log.sequence() <= static_cast<std::uint64_t>(std::count(text.begin(), text.end(), '\n')));
  });
  ::unlink(path.c_str());
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const SigningKey signer = SigningKey::generate(SignatureAlgorithm::ed25519);
  const std::string text(reinterpret_cast<const char*>(data), size);
  read(text, signer);
  read(repaired(text, signer), signer);
  return 0;
}
