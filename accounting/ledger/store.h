// Where the entries of a ledger lie: a SQLite file, or a PostgreSQL database. One interface, one contract suite
// (tests/accounting/ledger/store_test.cpp).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "accounting/ledger/chain.h"

namespace hushgrad::ledger {

/// One connection. Not thread-safe: the session locks. Every method throws LedgerError when the storage refuses.
class Store {
 public:
  /// Whether an entry as it was read has the right types; `fault` says when it has not. Returns whether to go on.
  using Visit = std::function<bool(const Entry& entry, const std::string& fault)>;

  virtual ~Store() = default;

  /// Absolute path, ":memory:", or the address of a server without its password.
  virtual std::string name() const = 0;
  /// Whether a commit survives a power cut.
  virtual bool durable() const = 0;
  virtual bool read_only() = 0;
  /// Throws LedgerError when the name no longer leads to what was opened.
  virtual void check_identity() = 0;

  /// read: a consistent view. write: alone, and what is read next cannot change before the commit.
  virtual void begin(bool write) = 0;
  /// Empty when the entries are durable; otherwise what went wrong, and whether they are is unknown.
  virtual std::string commit() = 0;
  /// Rolls back what is open. Never throws.
  virtual void end() = 0;

  virtual void insert(const Entry& entry) = 0;
  virtual std::optional<Hash> hash_at(std::int64_t sequence) = 0;
  /// Every entry with a sequence above `after`, in order, at most `limit`.
  virtual void read(std::int64_t after, std::int64_t limit, const Visit& visit) = 0;

  /// Empty when tables, triggers and rights are as they were made; otherwise what differs. Cheap when nothing changed.
  virtual std::string schema_fault() = 0;
  /// The storage's own check of its files; empty when it finds nothing.
  virtual std::string integrity_fault() = 0;
  /// In a write transaction: marks the storage as one of this schema version.
  virtual void migrate() = 0;
};

/// Rolls back unless commit() was reached.
class StoreTransaction {
 public:
  StoreTransaction(Store& store, bool write) : store_(store) { store_.begin(write); }
  ~StoreTransaction() { store_.end(); }
  StoreTransaction(const StoreTransaction&) = delete;
  StoreTransaction& operator=(const StoreTransaction&) = delete;

 private:
  Store& store_;
};

/// What founds a ledger: the schema is made, then `genesis` is asked for the first entry, in one transaction.
using Genesis = std::function<Entry()>;

/// Opens what `path` names; makes it when it is not there and `create` holds. "postgresql://..." is a server.
std::unique_ptr<Store> open_store(const std::string& path, bool create, const Genesis& genesis);

}  // namespace hushgrad::ledger
