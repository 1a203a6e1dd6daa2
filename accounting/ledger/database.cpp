#include "accounting/ledger/database.h"

#include <sqlite3.h>

#include "dpcore/error.h"

namespace hushgrad::ledger {
namespace {

// Long enough for the slowest budget query of another process, short enough to tell a hung one.
constexpr int kBusyMilliseconds = 60'000;

constexpr const char* kSetUp[] = {
    "PRAGMA synchronous = EXTRA",     "PRAGMA mmap_size = 0",      "PRAGMA trusted_schema = OFF",
    "PRAGMA foreign_keys = ON",       "PRAGMA fullfsync = ON",     "PRAGMA cell_size_check = ON",
    "PRAGMA recursive_triggers = ON",  // so that INSERT OR REPLACE meets the trigger that forbids DELETE
};

}  // namespace

Database::Database(const std::string& path) {
  const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_NOFOLLOW |
                    (path == ":memory:" ? SQLITE_OPEN_MEMORY | SQLITE_OPEN_CREATE : 0);
  const int code = sqlite3_open_v2(path.c_str(), &connection_, flags, nullptr);
  if (code != SQLITE_OK) {
    const std::string why = connection_ ? sqlite3_errmsg(connection_) : "out of memory";
    sqlite3_close_v2(connection_);
    throw LedgerError(message("[ledger] Expected a ledger that can be opened, received '", path, "': ", why,
                              ". Check the path and its permissions."));
  }
  try {
    sqlite3_extended_result_codes(connection_, 1);
    sqlite3_busy_timeout(connection_, kBusyMilliseconds);
    sqlite3_db_config(connection_, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
    sqlite3_db_config(connection_, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0, nullptr);
    for (const char* pragma : kSetUp) execute(pragma);
    const std::string mode = text("PRAGMA journal_mode = DELETE");
    if (path != ":memory:" && mode != "delete") {
      throw LedgerError(message("[ledger] Expected journal mode delete, received ", mode,
                                ". Another program changed the file; close it there and verify the ledger."));
    }
  } catch (...) {
    sqlite3_close_v2(connection_);
    throw;
  }
}

Database::~Database() { sqlite3_close_v2(connection_); }

void Database::execute(const char* sql) {
  if (try_execute(sql) != SQLITE_OK) fail(sql);
}

int Database::try_execute(const char* sql) { return sqlite3_exec(connection_, sql, nullptr, nullptr, nullptr); }

std::int64_t Database::integer(const char* sql) {
  Statement statement(*this, sql);
  return statement.step() ? statement.integer(0) : 0;
}

std::string Database::text(const char* sql) {
  Statement statement(*this, sql);
  return statement.step() ? statement.bytes(0) : std::string();
}

bool Database::read_only() const { return sqlite3_db_readonly(connection_, "main") == 1; }

bool Database::in_transaction() const { return sqlite3_get_autocommit(connection_) == 0; }

void Database::end_transaction() {
  if (in_transaction()) try_execute("ROLLBACK");
  // SQLite trusts its page cache while a counter in the file stands still, also when the bytes under it were replaced by
  // those of another copy with the same count.
  sqlite3_db_release_memory(connection_);
}

void Database::fail(std::string_view doing) const {
  const int code = sqlite3_extended_errcode(connection_);
  const char* advice = "Check the disk, its free space and the permissions of the file and its folder.";
  if ((code & 0xff) == SQLITE_BUSY) advice = "Another process holds the ledger; see which one, then try again.";
  if ((code & 0xff) == SQLITE_NOTADB) advice = "Give the path of a ledger, or of a file that does not exist yet.";
  if ((code & 0xff) == SQLITE_CORRUPT) advice = "The file is damaged: keep it, and restore a copy that verifies.";
  throw LedgerError(message("[ledger] Expected the database to run '", doing, "', received: ",
                            sqlite3_errmsg(connection_), " (code ", code, "). ", advice));
}

Statement::Statement(Database& database, const char* sql) : database_(database) {
  check(sqlite3_prepare_v3(database.raw(), sql, -1, 0, &statement_, nullptr));
}

Statement::~Statement() { sqlite3_finalize(statement_); }

void Statement::check(int code) const {
  if (code != SQLITE_OK) database_.fail(statement_ ? sqlite3_sql(statement_) : "prepare");
}

Statement& Statement::bind(int index, std::int64_t value) {
  check(sqlite3_bind_int64(statement_, index, value));
  return *this;
}

Statement& Statement::bind(int index, std::string_view text) {
  check(sqlite3_bind_text64(statement_, index, text.data(), text.size(), SQLITE_TRANSIENT, SQLITE_UTF8));
  return *this;
}

Statement& Statement::bind(int index, std::span<const unsigned char> blob) {
  check(sqlite3_bind_blob64(statement_, index, blob.data(), blob.size(), SQLITE_TRANSIENT));
  return *this;
}

bool Statement::step() {
  const int code = sqlite3_step(statement_);
  if (code == SQLITE_ROW) return true;
  if (code != SQLITE_DONE) database_.fail(sqlite3_sql(statement_));
  return false;
}

bool Statement::is_integer(int column) const { return sqlite3_column_type(statement_, column) == SQLITE_INTEGER; }
bool Statement::is_text(int column) const { return sqlite3_column_type(statement_, column) == SQLITE_TEXT; }
bool Statement::is_blob(int column) const { return sqlite3_column_type(statement_, column) == SQLITE_BLOB; }

std::int64_t Statement::integer(int column) const { return sqlite3_column_int64(statement_, column); }

std::string Statement::bytes(int column) const {
  const auto* data = static_cast<const char*>(sqlite3_column_blob(statement_, column));
  const int size = sqlite3_column_bytes(statement_, column);
  return data ? std::string(data, static_cast<std::size_t>(size)) : std::string();
}

Transaction::Transaction(Database& database, bool write) : database_(database) {
  database_.execute(write ? "BEGIN IMMEDIATE" : "BEGIN");
}

Transaction::~Transaction() { database_.end_transaction(); }

int Transaction::commit() { return database_.try_execute("COMMIT"); }

}  // namespace hushgrad::ledger
