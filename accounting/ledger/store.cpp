#include "accounting/ledger/store.h"

#include "accounting/ledger/postgres_store.h"
#include "accounting/ledger/sqlite_store.h"

namespace hushgrad::ledger {

std::unique_ptr<Store> open_store(const std::string& path, bool create, const Genesis& genesis) {
  if (is_postgres_address(path)) return open_postgres_store(path, create, genesis);
  return std::make_unique<SqliteStore>(path, create, genesis);
}

}  // namespace hushgrad::ledger
