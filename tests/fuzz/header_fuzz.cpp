// A whole file: prefix, core, slots, trailer; and what a reader with the key makes of it.
#include "dpcore/sealed/sealed_file.h"
#include "fuzz/fuzzing.h"

using namespace hushgrad;

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const fuzzing::MemoryFile file(fuzzing::bytes_of(data, size));
  fuzzing::guarded([&] { appearance_of(file.path()); });
  fuzzing::guarded([&] {
    const SealedReader reader(file.path(), fuzzing::KnownKey());
    reader.verify_all();
    for (const auto& entry : reader.tensors()) {
      std::vector<std::byte> out(entry.end - entry.begin);
      reader.read(entry, out);
    }
  });
  return 0;
}
