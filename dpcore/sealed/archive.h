// Files and folders in sealed files: `hushgrad seal` and `hushgrad open`. An archive is a sealed file whose tensors are the
// files, as U8, named by their paths. Format: docs/formats/sealed_file.md.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "dpcore/sealed/sealed_file.h"

namespace hushgrad {

/// Seals the regular file, or the folder with all in it, that stands at `source`. Bytes are read as they are sealed;
/// memory is that of SealedWriter. Of attributes only "executable" is kept.
/// Refused, naming it, before anything is written: links, hard links, FIFOs, sockets, devices, files with setuid, setgid
/// or sticky bits, names that are not UTF-8 or hold control characters, folders nested more than 64 deep
/// (InvalidArgument). A file that changes while it is sealed is an IoError.
/// Returns the written, not yet visible file.
SealedWriter seal_path(const std::string& source, const std::string& target, const SealedCore& core,
                       const KeyProvider& keys, const SealOptions& options = {});

/// What one archive holds.
struct Archive {
  struct File {
    std::string path;  // relative, names between single slashes
    std::uint64_t bytes;
    bool executable;
  };
  bool is_folder = false;             // else one file, and its path is its name
  std::vector<std::string> folders;   // relative, each after the one that holds it
  std::vector<File> files;            // in the order of the sealed file's tensors
};

/// Reads what an archive says about itself as hostile input: SealError unless every path is relative, stays inside
/// (no empty, "." or ".." part), is unique, lies in a folder that is listed before, and is not folder and file at once.
Archive parse_archive(const std::string& meta_json, const std::vector<SealedReader::Entry>& entries);

/// Whether a sealed file's document says that it is an archive.
bool is_archive(const std::string& meta_json);

struct OpenOptions {
  IfExists if_exists = IfExists::refuse;
  const PublicKey* writer = nullptr;  // only what this identity signed
  Progress progress{};
};

/// Opens an archive at `target`: the file itself, or a new folder. Everything is authenticated; plaintext appears at
/// `target` only complete. Meanwhile it lies under a name of its own beside it, readable by the owner only, and is removed
/// on error; a killed process may leave that `.hgtmp`. Files get mode 0600, executables and folders 0700. `replace`
/// replaces a file by a file, and a whole folder by a folder; never a link.
/// Errors: SealError, KeyError; IoError; Unsupported for a sealed file that is no archive.
void open_archive(const std::string& sealed, const std::string& target, const KeyProvider& keys,
                  const OpenOptions& options = {});

}  // namespace hushgrad
