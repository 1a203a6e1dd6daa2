// The two places where a ledger can lie, for tests that have to hold in both.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "accounting/ledger/ledger.h"
#include "accounting/ledger/postgres_server.h"
#include "accounting/ledger/postgres_store.h"
#include "accounting/ledger/raw_sqlite.h"
#include "accounting/ledger/temporary_folder.h"
#include "dpcore/error.h"

namespace hushgrad::ledger_test {

inline PostgresServer& server() {
  static PostgresServer one;
  return one;
}

enum class Engine { sqlite, postgres };

class OnBothEngines : public testing::TestWithParam<Engine> {
 protected:
  void SetUp() override {
    if (GetParam() == Engine::sqlite) {
      path_ = folder_ / "l.db";
      return;
    }
    if (!server().why_not().empty()) GTEST_SKIP() << "PostgreSQL is not tested: " << server().why_not();
    static int number = 0;
    database_ = "ledger" + std::to_string(++number);
    path_ = server().make_database(database_);
    try {
      ledger::open_postgres_store("postgresql://127.0.0.1:1/none", false, {});
    } catch (const Unsupported&) {
      GTEST_SKIP() << "PostgreSQL is not tested: this build has no libpq";
    } catch (const LedgerError&) {
    }
  }
  bool is_sqlite() const { return GetParam() == Engine::sqlite; }
  std::string begin(Ledger& ledger) { return ledger.begin_run({"mimic", "", "", ""}); }
  /// As somebody who owns the storage: guards are put aside for the edit.
  void edit(const std::string& sql) {
    if (is_sqlite()) return edit_unguarded(path_, sql);
    ASSERT_TRUE(server().sql(database_, "ALTER TABLE hushgrad.entry DISABLE TRIGGER ALL; SET search_path = hushgrad; " + sql +
                                            "; ALTER TABLE hushgrad.entry ENABLE TRIGGER ALL;"))
        << server().log();
  }
  bool try_sql(const std::string& sql) {
    if (is_sqlite()) return run_sql(path_, sql).empty();
    return server().sql(database_, "SET search_path = hushgrad; " + sql);
  }

  TemporaryFolder folder_;
  std::string path_, database_;
};

inline std::string engine_name(const testing::TestParamInfo<Engine>& info) {
  return info.param == Engine::sqlite ? "Sqlite" : "Postgres";
}

}  // namespace hushgrad::ledger_test
