// A file that appears complete or not at all.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace hushgrad {

/// What to do when something already stands at the path.
enum class IfExists { refuse, replace };

/// Writes to a temporary file `.<32 hex digits>.hgtmp` in the folder of `path` (O_EXCL, O_NOFOLLOW, mode
/// 0600) and gives it its name only when it is complete and on disk. The folder is opened once: renaming or
/// replacing it meanwhile does not redirect the file. `refuse` holds also against something that appears
/// while writing (RENAME_NOREPLACE); `replace` replaces regular files only. Until publish() succeeds,
/// destruction removes the temporary file.
/// Errors: IoError; InvalidArgument for a path without a file name. After an error the object only wants
/// destruction, and publish() throws InvalidState: fsync is never tried twice, for the second try may report success on
/// pages that were lost.
class DurableFile {
 public:
  DurableFile(const std::string& path, IfExists if_exists);
  ~DurableFile();
  DurableFile(const DurableFile&) = delete;
  DurableFile& operator=(const DurableFile&) = delete;

  /// Writes all of `bytes` at `offset`. Safe to call from several threads for disjoint ranges.
  void write_at(std::uint64_t offset, std::span<const std::byte> bytes);

  /// Lets the disk begin with what was written there, so that publish() finds little to wait for. A hint: nothing is durable
  /// before publish(), which also reports what went wrong.
  void begin_writeback(std::uint64_t offset, std::uint64_t size);

  /// Gives back the memory in which the system holds what is to be replaced, so that a large file takes no more than its own. A hint:
  /// the old file stays, and stays readable.
  void forget_replaced() const;

  /// fsync, rename to the final name, fsync of the folder. Once.
  void publish();

  /// Whether the file has its name, also where publish() failed after that: only the fsync of the folder is missing then.
  bool named() const { return !pending_; }

 private:
  void refuse_target() const;
  void rename_without_replacing();
  [[noreturn]] void fail(const char* step) const;

  std::string path_, name_, temporary_;
  IfExists if_exists_;
  int folder_ = -1;
  int file_ = -1;
  bool pending_ = false;  // whether the temporary file exists
  mutable std::atomic<bool> failed_{false};
};

/// fsync of the folder that holds `path`: after it a new name in there is durable. IoError.
void sync_folder_of(const std::string& path);

/// Writes all of `bytes` at `offset` of an open file; false, with errno, when the system refuses.
bool write_at(int descriptor, std::uint64_t offset, std::span<const std::byte> bytes);

/// Reads exactly out.size() bytes at `offset` of an open file; false when the file ends before. IoError.
bool read_at(int descriptor, std::uint64_t offset, std::span<std::byte> out, const std::string& path);

/// Closes a descriptor when it goes out of scope.
class Descriptor {
 public:
  explicit Descriptor(int descriptor) : descriptor_(descriptor) {}
  ~Descriptor();
  Descriptor(Descriptor&& other) noexcept : descriptor_(other.descriptor_) { other.descriptor_ = -1; }
  Descriptor& operator=(Descriptor&& other) noexcept;
  int get() const { return descriptor_; }

 private:
  int descriptor_;
};

}  // namespace hushgrad
