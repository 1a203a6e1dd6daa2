// A note of a witness, or its key: read or refused with a typed error; nobody else's signature ever passes.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "accounting/ledger/note.h"
#include "dpcore/error.h"

using namespace hushgrad;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const NoteKeys keys = make_note_keys("witness");
  static const std::string good = sign_note("hushgrad-ledger/aa\n1\nAAAA\n", keys.signer);
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto guarded = [](auto&& body) {
    try {
      body();
    } catch (const Error&) {
    }
  };
  guarded([&] {
    open_note(text, keys.verifier);
    std::abort();  // nobody has signed it
  });
  guarded([&] { open_note(good, text); });
  guarded([&] { head_in(text, std::string(32, 'a')); });
  guarded([&] { sign_note(text, keys.signer); });
  guarded([&] { sign_note("text\n", text); });
  return 0;
}
