// Plain SQLite on a ledger file, as somebody without the SDK would use it.
#pragma once

#include <gtest/gtest.h>
#include <sqlite3.h>

#include <string>

namespace hushgrad::ledger_test {

/// Runs the statements and returns SQLite's words; empty when all went well.
inline std::string run_sql(const std::string& path, const std::string& sql) {
  sqlite3* connection = nullptr;
  if (sqlite3_open(path.c_str(), &connection) != SQLITE_OK) return "cannot open";
  char* error = nullptr;
  sqlite3_exec(connection, sql.c_str(), nullptr, nullptr, &error);
  const std::string words = error ? error : "";
  sqlite3_free(error);
  sqlite3_close(connection);
  return words;
}

/// The same on a file whose guards were taken away and put back, so that only the content gives the edit away.
inline void edit_unguarded(const std::string& path, const std::string& sql) {
  sqlite3* connection = nullptr;
  ASSERT_EQ(sqlite3_open(path.c_str(), &connection), SQLITE_OK);
  std::string guards;
  const auto collect = [](void* out, int, char** values, char**) {
    *static_cast<std::string*>(out) += std::string(values[0]) + ";";
    return 0;
  };
  sqlite3_exec(connection, "SELECT sql FROM sqlite_schema WHERE type = 'trigger' ORDER BY rowid", collect, &guards, nullptr);
  const std::string script = "BEGIN; DROP TRIGGER entry_appends; DROP TRIGGER entry_is_kept; DROP TRIGGER entry_is_final;" +
                             sql + ";" + guards + "COMMIT;";
  char* error = nullptr;
  EXPECT_EQ(sqlite3_exec(connection, script.c_str(), nullptr, nullptr, &error), SQLITE_OK) << (error ? error : "");
  sqlite3_free(error);
  sqlite3_close(connection);
}

}  // namespace hushgrad::ledger_test
