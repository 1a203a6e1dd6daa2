// Folders on disk, as archives read and write them: never through a link, never outside.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <sys/types.h>

#include "dpcore/keys/durable_file.h"
#include "dpcore/sealed/payload_source.h"

namespace hushgrad {

inline constexpr std::size_t kMaxArchiveDepth = 64;

struct FolderContents {
  struct File {
    std::string path;
    std::uint64_t bytes;
    bool executable;
    ino_t inode;
    std::int64_t changed;  // nanoseconds, of the clock of the file system
    std::uint64_t begin;   // in all files laid one after the other
  };
  std::vector<std::string> folders;
  std::vector<File> files;
};

/// A file, or a folder with all in it, as one array of bytes that is read when it is asked for. InvalidArgument for what
/// archives do not hold (archive.h); IoError when the operating system refuses, or a file changed since.
class SourceFolder final : public PayloadSource {
 public:
  explicit SourceFolder(const std::string& path);

  bool is_folder() const { return is_folder_; }
  const FolderContents& contents() const { return contents_; }
  std::uint64_t size() const override { return size_; }
  std::span<const std::byte> get(std::uint64_t offset, std::size_t size, std::span<std::byte> room) const override;

 private:
  void add_file(int folder, const std::string& name, const std::string& path);
  void add_folder(int folder, const std::string& path, std::size_t depth);
  void read(const FolderContents::File& file, std::uint64_t offset, std::span<std::byte> out) const;

  Descriptor root_{-1};
  bool is_folder_ = false;
  FolderContents contents_;
  std::uint64_t size_ = 0;
};

/// A new folder that gets its name when it is complete. Until publish() succeeds, destruction removes it.
class NewFolder {
 public:
  NewFolder(const std::string& path, IfExists if_exists);
  ~NewFolder();
  NewFolder(const NewFolder&) = delete;
  NewFolder& operator=(const NewFolder&) = delete;

  class File {
   public:
    File(Descriptor file, std::string path) : file_(std::move(file)), path_(std::move(path)) {}
    void write_at(std::uint64_t offset, std::span<const std::byte> bytes) const;
    /// fsync, once.
    void finish() const;

   private:
    Descriptor file_;
    std::string path_;
  };
  /// Both take relative paths without "." and "..", whose folder was made before.
  void make_folder(const std::string& path);
  File make_file(const std::string& path, bool executable);
  void publish();

 private:
  bool remove();  // whether nothing is left
  std::string path_, name_, temporary_;
  std::vector<std::string> folders_;
  IfExists if_exists_;
  Descriptor parent_{-1}, root_{-1};
  bool pending_ = false;
};

}  // namespace hushgrad
