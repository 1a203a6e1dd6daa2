// Where a ledger lies: the checks that a path has to pass before SQLite sees it.
#pragma once

#include <cstdint>
#include <string>

namespace hushgrad::ledger {

/// A file, told apart from another one that later takes its name.
struct FileIdentity {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  friend bool operator==(const FileIdentity&, const FileIdentity&) = default;
};

struct Location {
  std::string path;      // absolute, links of the folder resolved; or ":memory:"
  bool memory = false;
  bool durable = false;  // false for memory and for tmpfs or ramfs
};

/// The name of the network or user-space file system behind statfs(2)'s f_type; nullptr for any other.
const char* remote_file_system(std::uint32_t magic);

/// Throws InvalidArgument for a path that is empty or holds a NUL, IoError when its folder cannot be read, LedgerError
/// when it lies on a network or user-space (FUSE) file system: their locks and syncs do not hold what a budget needs.
Location locate(const std::string& path);

/// Whether something has that name. Throws LedgerError when it is not a regular file with exactly one name: through a
/// second name SQLite would look for the rollback journal in the wrong place and lose commits.
bool is_ledger_file(const std::string& path);

/// Throws LedgerError when there is no such file.
FileIdentity identify(const std::string& path);

/// Makes an empty file beside `path`, readable by its owner only, and returns its name.
std::string make_sibling(const std::string& path);

/// Gives `sibling` the name `path`, durably, unless something has that name: then false, and the sibling is removed.
bool publish(const std::string& sibling, const std::string& path);

}  // namespace hushgrad::ledger
