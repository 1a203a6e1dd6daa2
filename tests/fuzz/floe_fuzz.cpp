// A FLOE message: whatever decrypts is what was encrypted.
#include "dpcore/sealed/floe.h"
#include "fuzz/fuzzing.h"

using namespace hushgrad;

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::vector<std::byte> key(32, std::byte{7});
  const auto input = fuzzing::bytes_of(data, size);
  fuzzing::guarded([&] { floe_decrypt(key, {}, 64, input); });
  fuzzing::guarded([&] {
    const auto message = floe_encrypt(key, input.first(std::min<std::size_t>(size, 100)), 64, input);
    const auto back = floe_decrypt(key, input.first(std::min<std::size_t>(size, 100)), 64, message);
    fuzzing::demand(std::equal(back.begin(), back.end(), input.begin(), input.end()));
    auto damaged = message;
    damaged[size % damaged.size()] ^= std::byte{1};
    try {
      floe_decrypt(key, input.first(std::min<std::size_t>(size, 100)), 64, damaged);
      std::abort();
    } catch (const SealError&) {
    }
  });
  return 0;
}
