// A disk that fails where a test wants it to, and that remembers what a power cut would leave of it.
#pragma once

#include <sqlite3.h>

#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace hushgrad::ledger_test {

/// SQLite's default file layer while it lives. Counts writes, truncations, syncs and deletions; on request fails one.
///
/// power_cut() gives the files as they are after a cut in the worst case: of each file only what was written before its
/// last sync, and no deletion that the sync of its folder did not follow. A new file's name is on disk from its first
/// sync on (SQLite syncs the folder with it).
class FaultyVfs {
 public:
  using Files = std::map<std::string, std::string>;

  FaultyVfs() : real_(sqlite3_vfs_find(nullptr)), vfs_(*real_) {
    current_ = this;
    vfs_.szOsFile = static_cast<int>(sizeof(File)) + real_->szOsFile;
    vfs_.zName = "hushgrad_faulty";
    vfs_.xOpen = open;
    vfs_.xDelete = remove;
    sqlite3_vfs_register(&vfs_, 1);
  }
  ~FaultyVfs() {
    sqlite3_vfs_unregister(&vfs_);
    sqlite3_vfs_register(real_, 1);
    current_ = nullptr;
  }
  FaultyVfs(const FaultyVfs&) = delete;
  FaultyVfs& operator=(const FaultyVfs&) = delete;

  /// The operation number `operation` from now on (0 is the next) fails; with `forever`, all after it too.
  void fail_at(int operation, bool forever) {
    fail_at_ = operations + operation;
    forever_ = forever;
  }
  void heal() { fail_at_.reset(); }

  /// Declares what lies on disk under `path` now, so that power_cut() starts from it.
  void remember(const std::string& path, const std::string& bytes) { live_[path] = durable_[path] = bytes; }
  const Files& power_cut() const { return durable_; }
  /// As after kill -9: everything the process wrote.
  const Files& live() const { return live_; }
  /// Called before every operation, with everything before it done.
  std::function<void()> before_operation;

  int operations = 0;
  int syncs = 0;
  bool failed = false;

 private:
  struct File {
    sqlite3_file base;
    std::string* name;
    sqlite3_file* real() { return reinterpret_cast<sqlite3_file*>(this + 1); }
  };

  static FaultyVfs& self() { return *current_; }
  static File* of(sqlite3_file* file) { return reinterpret_cast<File*>(file); }

  bool next_fails() {
    if (before_operation) before_operation();
    const int number = operations++;
    const bool fails = fail_at_ && (forever_ ? number >= *fail_at_ : number == *fail_at_);
    failed = failed || fails;
    return fails;
  }

  static int open(sqlite3_vfs*, const char* name, sqlite3_file* file, int flags, int* out) {
    File* shim = of(file);
    shim->base.pMethods = nullptr;
    shim->name = nullptr;
    const int code = self().real_->xOpen(self().real_, name, shim->real(), flags, out);
    if (code != SQLITE_OK) return code;
    shim->name = new std::string(name ? name : "");
    if (name != nullptr) self().live_.try_emplace(name);
    shim->base.pMethods = methods();
    return SQLITE_OK;
  }

  static int remove(sqlite3_vfs*, const char* name, int sync_folder) {
    FaultyVfs& vfs = self();
    if (vfs.next_fails()) return SQLITE_IOERR_DELETE;
    const int code = vfs.real_->xDelete(vfs.real_, name, sync_folder);
    if (code != SQLITE_OK) return code;
    vfs.live_.erase(name);
    if (sync_folder) vfs.durable_.erase(name);
    return code;
  }

  static int close(sqlite3_file* file) {
    delete of(file)->name;
    return of(file)->real()->pMethods->xClose(of(file)->real());
  }
  static int read(sqlite3_file* file, void* out, int size, sqlite3_int64 offset) {
    return of(file)->real()->pMethods->xRead(of(file)->real(), out, size, offset);
  }
  static int write(sqlite3_file* file, const void* data, int size, sqlite3_int64 offset) {
    FaultyVfs& vfs = self();
    if (vfs.next_fails()) return SQLITE_IOERR_WRITE;
    std::string& bytes = vfs.live_[*of(file)->name];
    const auto end = static_cast<std::size_t>(offset) + static_cast<std::size_t>(size);
    if (bytes.size() < end) bytes.resize(end);
    std::memcpy(bytes.data() + offset, data, static_cast<std::size_t>(size));
    return of(file)->real()->pMethods->xWrite(of(file)->real(), data, size, offset);
  }
  static int truncate(sqlite3_file* file, sqlite3_int64 size) {
    if (self().next_fails()) return SQLITE_IOERR_TRUNCATE;
    self().live_[*of(file)->name].resize(static_cast<std::size_t>(size));
    return of(file)->real()->pMethods->xTruncate(of(file)->real(), size);
  }
  static int sync(sqlite3_file* file, int flags) {
    FaultyVfs& vfs = self();
    if (vfs.next_fails()) return SQLITE_IOERR_FSYNC;
    ++vfs.syncs;
    vfs.durable_[*of(file)->name] = vfs.live_[*of(file)->name];
    return of(file)->real()->pMethods->xSync(of(file)->real(), flags);
  }
  static int size(sqlite3_file* file, sqlite3_int64* out) {
    return of(file)->real()->pMethods->xFileSize(of(file)->real(), out);
  }
  static int lock(sqlite3_file* file, int level) { return of(file)->real()->pMethods->xLock(of(file)->real(), level); }
  static int unlock(sqlite3_file* file, int level) { return of(file)->real()->pMethods->xUnlock(of(file)->real(), level); }
  static int reserved(sqlite3_file* file, int* out) {
    return of(file)->real()->pMethods->xCheckReservedLock(of(file)->real(), out);
  }
  static int control(sqlite3_file* file, int operation, void* argument) {
    return of(file)->real()->pMethods->xFileControl(of(file)->real(), operation, argument);
  }
  static int sector(sqlite3_file* file) { return of(file)->real()->pMethods->xSectorSize(of(file)->real()); }
  static int traits(sqlite3_file* file) { return of(file)->real()->pMethods->xDeviceCharacteristics(of(file)->real()); }

  static const sqlite3_io_methods* methods() {
    static const sqlite3_io_methods table = {1,    close,  read,     write,   truncate, sync,   size, lock,
                                             unlock, reserved, control, sector, traits, nullptr, nullptr, nullptr,
                                             nullptr, nullptr, nullptr};
    return &table;
  }

  static inline FaultyVfs* current_ = nullptr;
  sqlite3_vfs* real_;
  sqlite3_vfs vfs_;
  Files live_;
  Files durable_;
  std::optional<int> fail_at_;
  bool forever_ = false;
};

}  // namespace hushgrad::ledger_test
