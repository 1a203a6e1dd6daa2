// The index: what is read back is written as it was.
#include "dpcore/sealed/tensor_index.h"
#include "fuzz/fuzzing.h"

using namespace hushgrad;

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 8) return 0;
  const std::string text(reinterpret_cast<const char*>(data) + 8, size - 8);
  fuzzing::guarded([&] {
    const TensorIndex index = parse_index(text, read_big_endian(fuzzing::bytes_of(data, 8)));
    std::vector<TensorDescription> again;
    for (const auto& e : index.tensors) again.push_back({e.name, e.dtype, e.shape, e.end - e.begin});
    fuzzing::demand(build_index(index.meta_json, again) == text);
  });
  return 0;
}
