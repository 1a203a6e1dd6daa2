// A ledger in a SQLite file, or in memory.
#pragma once

#include <memory>
#include <string>

#include "accounting/ledger/database.h"
#include "accounting/ledger/location.h"
#include "accounting/ledger/store.h"

namespace hushgrad::ledger {

class SqliteStore : public Store {
 public:
  SqliteStore(const std::string& path, bool create, const Genesis& genesis);

  std::string name() const override { return location_.path; }
  bool durable() const override { return location_.durable; }
  bool read_only() override { return database_->read_only(); }
  void check_identity() override;
  void begin(bool write) override;
  std::string commit() override;
  void end() override;
  void insert(const Entry& entry) override;
  std::optional<Hash> hash_at(std::int64_t sequence) override;
  void read(std::int64_t after, std::int64_t limit, const Visit& visit) override;
  std::string schema_fault() override;
  std::string integrity_fault() override;
  void migrate() override;

 private:
  Location location_;
  FileIdentity identity_;
  std::unique_ptr<Database> database_;
  std::int64_t schema_cookie_ = -1;  // SQLite's own counter of schema changes, when the schema was last found good
};

}  // namespace hushgrad::ledger
