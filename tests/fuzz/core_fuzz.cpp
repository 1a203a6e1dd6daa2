// The core: what is read back is written as it was.
#include "dpcore/sealed/sealed_core.h"
#include "fuzz/fuzzing.h"

using namespace hushgrad;

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  fuzzing::guarded([&] { fuzzing::demand(encode_core(decode_core(text)) == text); });
  return 0;
}
