// The tables of a ledger file, and the proof that a file has exactly these.
#pragma once

#include <cstdint>
#include <string>

#include "accounting/ledger/database.h"

namespace hushgrad::ledger {

constexpr std::int64_t kSchemaVersion = 3;  // 2: reserve, settle, migration; 3: actors and what they may do, teams, periods

/// Makes the table and its guards in an empty database.
void create_schema(Database& database);

/// Marks an older ledger as one of this version, so that older programs refuse it instead of calling it broken. In a
/// write transaction, together with the migration entry.
void migrate_schema(Database& database);

/// Throws LedgerError unless the file is a ledger of this or an older schema version.
void check_header(Database& database, const std::string& path);

/// Empty when every table, index, trigger and view is as create_schema() made it and nothing else is there; otherwise
/// what differs. A trigger more or less is how an edit could slip in, or a charge be dropped.
std::string schema_fault(Database& database);

}  // namespace hushgrad::ledger
