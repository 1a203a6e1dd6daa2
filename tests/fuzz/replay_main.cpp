// Runs a target once on each file it is given, where there is no libFuzzer.
#include <fstream>
#include <iterator>
#include <vector>

#include "fuzz/fuzzing.h"

int main(int count, char** paths) {
  for (int i = 1; i < count; ++i) {
    std::ifstream in(paths[i], std::ios::binary);
    const std::vector<char> text{std::istreambuf_iterator<char>(in), {}};
    LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(text.data()), text.size());
  }
}
