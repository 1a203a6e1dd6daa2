// Entries in and out of the one table.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "accounting/ledger/chain.h"
#include "accounting/ledger/database.h"

namespace hushgrad::ledger {

void insert(Database& database, const Entry& entry);

/// Walks the entries with a sequence above `after`, in order.
class EntryReader {
 public:
  EntryReader(Database& database, std::int64_t after, std::int64_t limit = INT64_MAX);
  /// The next entry as far as its columns have the right types; `fault` says when they have not.
  std::optional<Entry> next(std::string& fault);

 private:
  Statement statement_;
};

std::optional<Hash> hash_at(Database& database, std::int64_t sequence);

}  // namespace hushgrad::ledger
