#include "dpcore/sealed/archive.h"

#include <algorithm>
#include <string_view>
#include <unordered_set>

#include <nlohmann/json.hpp>

#include "dpcore/error.h"
#include "dpcore/sealed/archive_folder.h"

namespace hushgrad {
namespace {

using nlohmann::json;

constexpr char kFormat[] = "hushgrad.archive/1";
constexpr std::size_t kChunk = 8 * 1024 * 1024;

[[noreturn]] void malformed(const char* what) {
  throw SealError(message("[open_archive] Expected an archive with ", what, ", received another. Do not open it."));
}

bool is_inside(std::string_view path) {
  std::size_t parts = 0;
  for (std::size_t begin = 0; begin <= path.size(); ++parts) {
    const std::size_t end = std::min(path.find('/', begin), path.size());
    const std::string_view part = path.substr(begin, end - begin);
    if (part.empty() || part == "." || part == ".." || part.size() > 255) return false;
    begin = end + 1;
  }
  return parts <= kMaxArchiveDepth && std::none_of(path.begin(), path.end(), [](unsigned char c) {
    return c < 0x20 || c == 0x7F;
  });
}

std::string_view parent_of(std::string_view path) {
  const auto slash = path.rfind('/');
  return slash == path.npos ? std::string_view() : path.substr(0, slash);
}

std::vector<std::string> texts(const json& meta, const char* field) {
  std::vector<std::string> out;
  if (!meta.contains(field) || !meta[field].is_array()) malformed("its lists");
  for (const json& text : meta[field]) {
    if (!text.is_string()) malformed("texts in its lists");
    out.push_back(text);
  }
  return out;
}

std::string describe(const FolderContents& contents, bool is_folder) {
  json executable = json::array();
  for (const auto& file : contents.files) {
    if (file.executable) executable.push_back(file.path);
  }
  try {
    return json{{"format", kFormat}, {"root", is_folder ? "folder" : "file"}, {"folders", contents.folders},
                {"executable", std::move(executable)}}
        .dump();
  } catch (const json::exception&) {
    throw InvalidArgument("[seal] Expected names in UTF-8, received other bytes. Rename the file.");
  }
}

// Decrypts one file piece by piece into an open target.
template <typename Write>
void copy_out(const SealedReader& reader, const SealedReader::Entry& entry, const Write& write) {
  const std::uint64_t size = entry.end - entry.begin;
  SecretBytes room(static_cast<std::size_t>(std::min<std::uint64_t>(size, kChunk)));
  for (std::uint64_t offset = 0; offset < size; offset += room.size()) {
    const auto part = room.bytes().first(static_cast<std::size_t>(std::min<std::uint64_t>(room.size(), size - offset)));
    reader.read(entry, offset, part);
    write(offset, std::span<const std::byte>(part));
  }
}

void open_file(const SealedReader& reader, const std::string& target, const OpenOptions& options) {
  DurableFile out(target, options.if_exists);
  const SealedReader::Entry& entry = reader.tensors().front();
  copy_out(reader, entry, [&](std::uint64_t offset, std::span<const std::byte> bytes) {
    out.write_at(offset, bytes);
    if (options.progress) options.progress(offset + bytes.size(), entry.end);
  });
  out.publish();
}

void open_folder(const SealedReader& reader, const Archive& archive, const std::string& target,
                 const OpenOptions& options) {
  NewFolder out(target, options.if_exists);
  for (const std::string& folder : archive.folders) out.make_folder(folder);
  for (std::size_t i = 0; i < archive.files.size(); ++i) {
    const SealedReader::Entry& entry = reader.tensors()[i];
    const auto file = out.make_file(archive.files[i].path, archive.files[i].executable);
    copy_out(reader, entry, [&](std::uint64_t offset, std::span<const std::byte> bytes) {
      file.write_at(offset, bytes);
      if (options.progress) options.progress(entry.begin + offset + bytes.size(), reader.tensors().back().end);
    });
    file.finish();
  }
  out.publish();
}

}  // namespace

bool is_archive(const std::string& meta_json) {
  const json meta = json::parse(meta_json, nullptr, false);
  return meta.is_object() && meta.contains("format") && meta["format"] == kFormat;
}

Archive parse_archive(const std::string& meta_json, const std::vector<SealedReader::Entry>& entries) {
  const json meta = json::parse(meta_json, nullptr, false);
  if (!is_archive(meta_json) || meta.size() != 4 || !meta.contains("root") ||
      (meta["root"] != "file" && meta["root"] != "folder")) {
    malformed("format, root, folders and executable");
  }
  Archive archive;
  archive.is_folder = meta["root"] == "folder";
  archive.folders = texts(meta, "folders");
  std::unordered_set<std::string> folders{""}, files;
  for (const std::string& folder : archive.folders) {
    if (!is_inside(folder) || !folders.contains(std::string(parent_of(folder))) || !folders.insert(folder).second) {
      malformed("folders that lie inside it");
    }
  }
  for (const SealedReader::Entry& entry : entries) {
    if (entry.dtype != "U8" || entry.shape.size() != 1) malformed("bytes as files");
    if (!is_inside(entry.name) || !folders.contains(std::string(parent_of(entry.name))) || folders.contains(entry.name)) {
      malformed("files that lie inside it");
    }
    files.insert(entry.name);
    archive.files.push_back({entry.name, entry.end - entry.begin, false});
  }
  std::unordered_set<std::string> executable;
  for (std::string& path : texts(meta, "executable")) {
    if (!files.contains(path) || !executable.insert(std::move(path)).second) malformed("executables among its files");
  }
  for (Archive::File& file : archive.files) file.executable = executable.contains(file.path);
  if (!archive.is_folder && (archive.files.size() != 1 || !archive.folders.empty())) malformed("one file");
  return archive;
}

SealedWriter seal_path(const std::string& source, const std::string& target, const SealedCore& core,
                       const KeyProvider& keys, const SealOptions& options) {
  const SourceFolder folder(source);
  std::vector<TensorDescription> files;
  for (const auto& file : folder.contents().files) {
    files.push_back({file.path, "U8", {static_cast<std::int64_t>(file.bytes)}, file.bytes});
  }
  return {target, core, describe(folder.contents(), folder.is_folder()), files, folder, keys, options};
}

void open_archive(const std::string& sealed, const std::string& target, const KeyProvider& keys,
                  const OpenOptions& options) {
  SealedReader reader(sealed, keys);
  if (!is_archive(reader.meta_json())) {
    throw Unsupported(message("[open_archive] Expected a sealed file or folder in ", sealed,
                              ", received another kind of sealed file. Open a checkpoint with hushgrad.checkpoint.load."));
  }
  if (options.writer) reader.verify_manifest(*options.writer);
  const Archive archive = parse_archive(reader.meta_json(), reader.tensors());
  if (!archive.is_folder) return open_file(reader, target, options);
  open_folder(reader, archive, target, options);
}

}  // namespace hushgrad
