// A ledger in a PostgreSQL database, for teams. Built where libpq is found; elsewhere an address is refused.
#pragma once

#include <memory>
#include <string>

#include "accounting/ledger/store.h"

namespace hushgrad::ledger {

/// "postgresql://..." or "postgres://...".
bool is_postgres_address(const std::string& path);

/// The SQL that the owner of a database runs once: schema hushgrad, its table and guards, and the roles hushgrad_writer
/// (may append and read) and hushgrad_reader (may read). `create` in open_postgres_store() runs it where the schema is
/// missing and the user may make it.
const char* postgres_migration();

/// Throws LedgerError when the server cannot be reached, when the connection leaves this machine without TLS that checks
/// the server's name (sslmode=verify-full), and when there is no ledger and `create` is false; Unsupported when this
/// build has no libpq.
std::unique_ptr<Store> open_postgres_store(const std::string& address, bool create, const Genesis& genesis);

}  // namespace hushgrad::ledger
