#include "accounting/ledger/sqlite_store.h"

#include <unistd.h>

#include "accounting/ledger/schema.h"
#include "accounting/ledger/table.h"
#include "dpcore/error.h"

namespace hushgrad::ledger {
namespace {

void found_ledger(Database& database, const Genesis& genesis) {
  Transaction transaction(database, true);
  create_schema(database);
  ledger::insert(database, genesis());
  if (transaction.commit() != 0) database.fail("COMMIT");
}

// A ledger gets its name only once it is whole, so an empty or half-made file under that name is always a lost ledger.
void make_ledger_file(const std::string& path, const Genesis& genesis) {
  const std::string sibling = make_sibling(path);
  try {
    Database database(sibling);
    found_ledger(database, genesis);
  } catch (...) {
    ::unlink(sibling.c_str());
    ::unlink((sibling + "-journal").c_str());
    throw;
  }
  publish(sibling, path);
}

}  // namespace

SqliteStore::SqliteStore(const std::string& path, bool create, const Genesis& genesis) : location_(locate(path)) {
  const std::string& where = location_.path;
  if (location_.memory) {
    database_ = std::make_unique<Database>(where);
    found_ledger(*database_, genesis);
    return;
  }
  if (!is_ledger_file(where)) {
    if (!create) {
      throw LedgerError(message("[ledger] Expected a ledger, received no file at '", where,
                                "'. Check the path, or make one with hushgrad ledger init."));
    }
    make_ledger_file(where, genesis);
    is_ledger_file(where);
  }
  identity_ = identify(where);
  database_ = std::make_unique<Database>(where);
  SqliteStore::check_identity();
  check_header(*database_, where);
}

void SqliteStore::check_identity() {
  if (location_.memory || identify(location_.path) == identity_) return;
  throw LedgerError(message("[ledger] Expected the ledger that was opened, received another file at '", location_.path,
                            "'. Put the ledger back and open it again; what was charged counts as spent."));
}

void SqliteStore::begin(bool write) { database_->execute(write ? "BEGIN IMMEDIATE" : "BEGIN"); }

std::string SqliteStore::commit() {
  const int code = database_->try_execute("COMMIT");
  return code == 0 ? std::string() : message("SQLite code ", code);
}

void SqliteStore::end() { database_->end_transaction(); }

void SqliteStore::insert(const Entry& entry) { ledger::insert(*database_, entry); }

std::optional<Hash> SqliteStore::hash_at(std::int64_t sequence) { return ledger::hash_at(*database_, sequence); }

void SqliteStore::read(std::int64_t after, std::int64_t limit, const Visit& visit) {
  EntryReader reader(*database_, after, limit);
  std::string fault;
  while (const auto entry = reader.next(fault)) {
    if (!visit(*entry, fault)) return;
    fault.clear();
  }
}

std::string SqliteStore::schema_fault() {
  const std::int64_t cookie = database_->integer("PRAGMA schema_version");
  if (cookie == schema_cookie_) return {};
  std::string fault = ledger::schema_fault(*database_);
  if (fault.empty()) schema_cookie_ = cookie;
  return fault;
}

std::string SqliteStore::integrity_fault() {
  try {
    const std::string verdict = database_->text("PRAGMA integrity_check(1)");
    return verdict == "ok" ? std::string() : message("the file is damaged: ", verdict);
  } catch (const LedgerError& error) {
    return error.what();
  }
}

void SqliteStore::migrate() { migrate_schema(*database_); }

}  // namespace hushgrad::ledger
