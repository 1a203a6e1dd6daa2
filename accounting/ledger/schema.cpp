#include "accounting/ledger/schema.h"

#include <iterator>

#include "dpcore/error.h"

namespace hushgrad::ledger {
namespace {

constexpr std::int64_t kApplicationId = 0x68757368;  // "hush"

struct Definition {
  const char* name;
  const char* sql;  // as sqlite_schema keeps it
};

constexpr Definition kDefinitions[] = {
    {"entry",
     "CREATE TABLE entry ("
     "sequence INTEGER PRIMARY KEY CHECK (sequence > 0), "
     "time INTEGER NOT NULL CHECK (typeof(time) = 'integer'), "
     "kind TEXT NOT NULL CHECK (typeof(kind) = 'text'), "
     "payload TEXT NOT NULL CHECK (typeof(payload) = 'text'), "
     "previous BLOB NOT NULL CHECK (typeof(previous) = 'blob' AND length(previous) = 48), "
     "hash BLOB NOT NULL CHECK (typeof(hash) = 'blob' AND length(hash) = 48))"},
    {"entry_appends",
     "CREATE TRIGGER entry_appends BEFORE INSERT ON entry "
     "WHEN NEW.sequence IS NOT (SELECT ifnull(max(sequence), 0) + 1 FROM entry) "
     "BEGIN SELECT RAISE(ABORT, 'a ledger only grows at its end'); END"},
    {"entry_is_kept",
     "CREATE TRIGGER entry_is_kept BEFORE DELETE ON entry "
     "BEGIN SELECT RAISE(ABORT, 'a ledger entry is never deleted'); END"},
    {"entry_is_final",
     "CREATE TRIGGER entry_is_final BEFORE UPDATE ON entry "
     "BEGIN SELECT RAISE(ABORT, 'a ledger entry is never changed'); END"},
};

}  // namespace

void create_schema(Database& database) {
  database.execute(message("PRAGMA application_id = ", kApplicationId).c_str());
  database.execute(message("PRAGMA user_version = ", kSchemaVersion).c_str());
  for (const auto& definition : kDefinitions) database.execute(definition.sql);
}

void migrate_schema(Database& database) {
  database.execute(message("PRAGMA user_version = ", kSchemaVersion).c_str());
}

void check_header(Database& database, const std::string& path) {
  const std::int64_t application = database.integer("PRAGMA application_id");
  if (application != kApplicationId) {
    throw LedgerError(message("[ledger] Expected a hushgrad ledger, received '", path,
                              "', a database of something else. Give another path."));
  }
  const std::int64_t version = database.integer("PRAGMA user_version");
  if (version < 1 || version > kSchemaVersion) {
    throw LedgerError(message("[ledger] Expected schema version 1 to ", kSchemaVersion, ", received ", version,
                              ". Use a hushgrad that knows this version."));
  }
}

std::string schema_fault(Database& database) {
  Statement statement(database, "SELECT name, sql FROM sqlite_schema ORDER BY rowid");
  std::size_t found = 0;
  for (; statement.step(); ++found) {
    if (found >= std::size(kDefinitions)) return "the schema holds something that no ledger has";
    const auto& expected = kDefinitions[found];
    if (statement.bytes(0) != expected.name || statement.bytes(1) != expected.sql) {
      return message("the schema holds something else where '", expected.name, "' should be");
    }
  }
  if (found < std::size(kDefinitions)) return message("the schema lost '", kDefinitions[found].name, "'");
  return {};
}

}  // namespace hushgrad::ledger
