// The paths of an archive: none leads outside.
#include <filesystem>

#include <nlohmann/json.hpp>

#include "dpcore/sealed/archive.h"
#include "fuzz/fuzzing.h"

using namespace hushgrad;

// First line: the document. Every further line: the name of a file.
int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  std::size_t end = std::min(text.find('\n'), text.size());
  const std::string meta = text.substr(0, end);
  std::vector<SealedReader::Entry> entries;
  while (end < text.size()) {
    const std::size_t begin = end + 1;
    end = std::min(text.find('\n', begin), text.size());
    entries.push_back({text.substr(begin, end - begin), "U8", {0}, 0, 0});
  }
  if (!nlohmann::json::accept(meta)) return 0;  // as SealedReader has seen to
  fuzzing::guarded([&] {
    const Archive archive = parse_archive(meta, entries);
    for (const auto& file : archive.files) {
      const auto path = std::filesystem::path("/folder/inside") / file.path;
      fuzzing::demand(path.lexically_normal().string().starts_with("/folder/inside/"));
    }
  });
  return 0;
}
