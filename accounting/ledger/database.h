// The little of SQLite that the ledger needs, with errors turned into LedgerError. Not thread-safe: the ledger locks.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

struct sqlite3;
struct sqlite3_stmt;

namespace hushgrad::ledger {

/// One connection, set up for durability: rollback journal, synchronous=EXTRA (the folder is synced after the journal
/// is removed; without it a power cut can bring the journal back and undo a commit), no memory map, untrusted schema.
class Database {
 public:
  /// `path` must exist (or be ":memory:"); a symbolic link as its last part is refused.
  explicit Database(const std::string& path);
  ~Database();
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  void execute(const char* sql);
  /// Runs one statement and returns SQLite's extended result code instead of throwing.
  int try_execute(const char* sql);
  std::int64_t integer(const char* sql);
  std::string text(const char* sql);
  bool read_only() const;
  bool in_transaction() const;
  /// Rolls back an open transaction and drops what SQLite remembers of the file. Never throws.
  void end_transaction();
  /// Throws LedgerError that says what was being done and SQLite's own words.
  [[noreturn]] void fail(std::string_view doing) const;

  sqlite3* raw() const { return connection_; }

 private:
  sqlite3* connection_ = nullptr;
};

/// A prepared statement. Values are always bound, never pasted into the text.
class Statement {
 public:
  Statement(Database& database, const char* sql);
  ~Statement();
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;

  Statement& bind(int index, std::int64_t value);
  Statement& bind(int index, std::string_view text);
  Statement& bind(int index, std::span<const unsigned char> blob);
  /// True while there is a row.
  bool step();

  bool is_integer(int column) const;
  bool is_text(int column) const;
  bool is_blob(int column) const;
  std::int64_t integer(int column) const;
  /// Text or blob, byte for byte.
  std::string bytes(int column) const;

 private:
  void check(int code) const;

  Database& database_;
  sqlite3_stmt* statement_ = nullptr;
};

/// Rolls back unless commit() was reached.
class Transaction {
 public:
  /// write: takes the one write lock at once, so that what is read next cannot change before the commit.
  Transaction(Database& database, bool write);
  ~Transaction();
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;

  /// SQLite's extended result code. Anything but 0 leaves it open whether the commit reached the disk.
  int commit();

 private:
  Database& database_;
};

}  // namespace hushgrad::ledger
