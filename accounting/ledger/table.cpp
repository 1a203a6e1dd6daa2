#include "accounting/ledger/table.h"

#include <algorithm>

namespace hushgrad::ledger {
namespace {

std::optional<Hash> hash_in(const Statement& statement, int column) {
  const std::string bytes = statement.bytes(column);
  Hash hash{};
  if (!statement.is_blob(column) || bytes.size() != hash.size()) return std::nullopt;
  std::copy(bytes.begin(), bytes.end(), hash.begin());
  return hash;
}

}  // namespace

void insert(Database& database, const Entry& entry) {
  Statement statement(database,
                      "INSERT INTO entry (sequence, time, kind, payload, previous, hash) VALUES (?, ?, ?, ?, ?, ?)");
  statement.bind(1, entry.sequence).bind(2, entry.time).bind(3, entry.kind).bind(4, entry.payload);
  statement.bind(5, entry.previous).bind(6, entry.hash).step();
}

EntryReader::EntryReader(Database& database, std::int64_t after, std::int64_t limit)
    : statement_(database,
                 "SELECT sequence, time, kind, payload, previous, hash FROM entry WHERE sequence > ? "
                 "ORDER BY sequence LIMIT ?") {
  statement_.bind(1, after).bind(2, limit);
}

std::optional<Entry> EntryReader::next(std::string& fault) {
  if (!statement_.step()) return std::nullopt;
  const auto previous = hash_in(statement_, 4);
  const auto hash = hash_in(statement_, 5);
  const bool typed = statement_.is_integer(0) && statement_.is_integer(1) && statement_.is_text(2) &&
                     statement_.is_text(3) && previous && hash;
  if (!typed) fault = "a column holds another type than it should";
  return Entry{statement_.integer(0), statement_.integer(1), statement_.bytes(2), statement_.bytes(3),
               previous.value_or(Hash{}), hash.value_or(Hash{})};
}

std::optional<Hash> hash_at(Database& database, std::int64_t sequence) {
  Statement statement(database, "SELECT hash FROM entry WHERE sequence = ?");
  statement.bind(1, sequence);
  return statement.step() ? hash_in(statement, 0) : std::nullopt;
}

}  // namespace hushgrad::ledger
