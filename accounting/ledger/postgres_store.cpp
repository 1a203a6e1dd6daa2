#include "accounting/ledger/postgres_store.h"

#include "dpcore/error.h"

#ifdef HUSHGRAD_HAVE_LIBPQ
#include <libpq-fe.h>

#include <array>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <vector>
#endif

namespace hushgrad::ledger {

bool is_postgres_address(const std::string& path) {
  return path.starts_with("postgresql://") || path.starts_with("postgres://");
}

// Functions name their schema and fix search_path, so that no object of another schema can stand in for theirs.
const char* postgres_migration() {
  return R"sql(
CREATE SCHEMA hushgrad;
CREATE TABLE hushgrad.entry (
  sequence bigint PRIMARY KEY CHECK (sequence > 0),
  time bigint NOT NULL,
  kind text COLLATE "C" NOT NULL,
  payload text COLLATE "C" NOT NULL,
  previous bytea NOT NULL CHECK (octet_length(previous) = 48),
  hash bytea NOT NULL CHECK (octet_length(hash) = 48)
);
CREATE FUNCTION hushgrad.entry_appends() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
  IF NEW.sequence IS DISTINCT FROM (SELECT coalesce(max(sequence), 0) + 1 FROM hushgrad.entry) THEN
    RAISE EXCEPTION 'a ledger only grows at its end';
  END IF;
  RETURN NEW;
END $$;
CREATE FUNCTION hushgrad.entry_is_final() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
  RAISE EXCEPTION 'a ledger entry is never changed or deleted';
END $$;
CREATE TRIGGER entry_appends BEFORE INSERT ON hushgrad.entry FOR EACH ROW EXECUTE FUNCTION hushgrad.entry_appends();
CREATE TRIGGER entry_is_final BEFORE UPDATE OR DELETE ON hushgrad.entry
  FOR EACH ROW EXECUTE FUNCTION hushgrad.entry_is_final();
CREATE TRIGGER entry_is_kept BEFORE TRUNCATE ON hushgrad.entry
  FOR EACH STATEMENT EXECUTE FUNCTION hushgrad.entry_is_final();
DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'hushgrad_writer') THEN CREATE ROLE hushgrad_writer; END IF;
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'hushgrad_reader') THEN CREATE ROLE hushgrad_reader; END IF;
END $$;
REVOKE ALL ON SCHEMA hushgrad FROM PUBLIC;
GRANT USAGE ON SCHEMA hushgrad TO hushgrad_writer, hushgrad_reader;
GRANT SELECT ON hushgrad.entry TO hushgrad_writer, hushgrad_reader;
GRANT INSERT ON hushgrad.entry TO hushgrad_writer;
)sql";
}

#ifndef HUSHGRAD_HAVE_LIBPQ

std::unique_ptr<Store> open_postgres_store(const std::string&, bool, const Genesis&) {
  throw Unsupported("[ledger] Expected a build with libpq for a PostgreSQL ledger, received one without. Install libpq-dev "
                    "and build again, or use a file.");
}

#else

namespace {

constexpr std::int64_t kChunk = 4096;  // entries in one answer

struct Clear {
  void operator()(PGresult* result) const { PQclear(result); }
  void operator()(PGconn* connection) const { PQfinish(connection); }
  void operator()(PQconninfoOption* options) const { PQconninfoFree(options); }
};
using Result = std::unique_ptr<PGresult, Clear>;
using Connection = std::unique_ptr<PGconn, Clear>;
using Options = std::unique_ptr<PQconninfoOption, Clear>;

std::string trimmed(const char* words) {
  std::string text = words == nullptr ? "" : words;
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  return text;
}

std::string big_endian(std::int64_t value) {
  std::string bytes(8, '\0');
  for (int i = 0; i < 8; ++i) bytes[static_cast<std::size_t>(i)] = static_cast<char>(value >> (56 - 8 * i) & 0xff);
  return bytes;
}

std::int64_t from_big_endian(const char* bytes) {
  std::uint64_t value = 0;
  for (int i = 0; i < 8; ++i) value = value << 8 | static_cast<unsigned char>(bytes[i]);
  return static_cast<std::int64_t>(value);
}

// One value as it goes to the server, never pasted into the text. Binary for numbers and hashes.
struct Value {
  Oid type;
  int format;
  std::string bytes;
};
Value value(std::int64_t number) { return {20, 1, big_endian(number)}; }
Value value(const std::string& text) { return {25, 0, text}; }
Value value(const Hash& hash) { return {17, 1, std::string(reinterpret_cast<const char*>(hash.data()), hash.size())}; }

class PostgresStore : public Store {
 public:
  PostgresStore(const std::string& address, bool create, const Genesis& genesis) : address_(address) {
    read_address();
    connect();
    if (!has_schema()) found(create, genesis);
    if (hash_count() == 0) throw LedgerError(message("[ledger] Expected a ledger at ", name_, ", received an empty table. ",
                                                     "Something emptied it; restore a copy that verifies."));
  }

  std::string name() const override { return name_; }
  bool durable() const override { return durable_; }
  bool read_only() override { return text("SELECT has_table_privilege('hushgrad.entry', 'INSERT')") != "t"; }
  /// Finds the server again after a connection was lost outside of a commit; what it then holds is checked like any other.
  void check_identity() override {
    if (PQstatus(connection_.get()) != CONNECTION_OK) connect();
  }

  void begin(bool write) override {
    execute(write ? "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE" : "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
    if (!write) return;
    execute("SET LOCAL lock_timeout = '60s'");
    // One writer at a time; it sees all that the one before committed. Released by the server when the connection ends.
    text("SELECT pg_advisory_xact_lock(1752527720, 1)");
  }

  std::string commit() override {
    const Result result(PQexec(connection_.get(), "COMMIT"));
    if (PQresultStatus(result.get()) != PGRES_COMMAND_OK) return trimmed(PQerrorMessage(connection_.get()));
    // A transaction that failed before answers its COMMIT with ROLLBACK, and no error.
    return std::strcmp(PQcmdStatus(result.get()), "COMMIT") == 0 ? std::string() : std::string("a rollback");
  }

  void end() override {
    if (PQtransactionStatus(connection_.get()) == PQTRANS_IDLE) return;
    const Result result(PQexec(connection_.get(), "ROLLBACK"));
  }

  void insert(const Entry& entry) override {
    query("INSERT INTO hushgrad.entry (sequence, time, kind, payload, previous, hash) VALUES ($1, $2, $3, $4, $5, $6)",
          {value(entry.sequence), value(entry.time), value(entry.kind), value(entry.payload), value(entry.previous),
           value(entry.hash)});
  }

  std::optional<Hash> hash_at(std::int64_t sequence) override {
    const Result result = query("SELECT hash FROM hushgrad.entry WHERE sequence = $1", {value(sequence)});
    return PQntuples(result.get()) == 1 ? hash_in(result.get(), 0, 0) : std::nullopt;
  }

  void read(std::int64_t after, std::int64_t limit, const Visit& visit) override {
    while (limit > 0) {
      const Result rows = query(
          "SELECT sequence, time, kind, payload, previous, hash FROM hushgrad.entry WHERE sequence > $1 ORDER BY sequence "
          "LIMIT $2",
          {value(after), value(std::min(limit, kChunk))});
      const int count = PQntuples(rows.get());
      for (int row = 0; row < count; ++row) {
        const auto previous = hash_in(rows.get(), row, 4);
        const auto hash = hash_in(rows.get(), row, 5);
        const Entry entry{integer(rows.get(), row, 0), integer(rows.get(), row, 1), bytes(rows.get(), row, 2),
                          bytes(rows.get(), row, 3), previous.value_or(Hash{}), hash.value_or(Hash{})};
        const bool typed = previous && hash;
        if (!visit(entry, typed ? "" : "a column holds another type than it should")) return;
        after = entry.sequence;
      }
      limit -= count;
      if (count < kChunk) return;
    }
  }

  std::string schema_fault() override {
    const std::string found = text(kDescription);
    if (found == kExpected) return {};
    return "the schema hushgrad is not as it was made: a guard, a column or a right is missing or more";
  }

  std::string integrity_fault() override { return {}; }  // pg_amcheck is the server's own check, for its administrator
  void migrate() override {}

 private:
  // Columns with their types, enabled triggers with what they call, and the text of the functions.
  static constexpr const char* kDescription =
      "SELECT concat_ws('|', "
      "(SELECT string_agg(concat_ws(' ', attname, format_type(atttypid, atttypmod), attnotnull), ',' ORDER BY attnum) "
      "FROM pg_catalog.pg_attribute WHERE attrelid = 'hushgrad.entry'::regclass AND attnum > 0 AND NOT attisdropped), "
      "(SELECT string_agg(concat_ws(' ', tgname, tgtype, tgenabled, tgfoid::regproc, tgqual IS NULL, tgattr), ',' ORDER BY tgname) "
      "FROM pg_catalog.pg_trigger WHERE tgrelid = 'hushgrad.entry'::regclass AND NOT tgisinternal), "
      "(SELECT string_agg(concat_ws(' ', proname, md5(prosrc), proconfig), ',' ORDER BY proname) FROM pg_catalog.pg_proc "
      "WHERE pronamespace = 'hushgrad'::regnamespace), "
      "(SELECT count(*) FROM pg_catalog.pg_rewrite WHERE ev_class = 'hushgrad.entry'::regclass), "
      "(SELECT relrowsecurity FROM pg_catalog.pg_class WHERE oid = 'hushgrad.entry'::regclass), "
      // Rows of a child table would be read with those of the ledger, without its guards.
      "(SELECT count(*) FROM pg_catalog.pg_inherits WHERE inhparent = 'hushgrad.entry'::regclass), "
      "(SELECT count(*) FROM pg_catalog.pg_class, aclexplode(relacl) AS given WHERE oid = 'hushgrad.entry'::regclass "
      "AND given.grantee <> relowner AND given.privilege_type NOT IN ('SELECT', 'INSERT')))";
  static constexpr const char* kExpected =
      "sequence bigint t,time bigint t,kind text t,payload text t,previous bytea t,hash bytea t|"
      "entry_appends 7 O hushgrad.entry_appends t ,entry_is_final 27 O hushgrad.entry_is_final t ,"
      "entry_is_kept 34 O hushgrad.entry_is_final t |"
      "entry_appends e9752c406729340711f16f2b0fd65ef4 {search_path=pg_catalog},"
      "entry_is_final 8ed60ccfacf22d9059756340ae0011b2 {search_path=pg_catalog}|0|f|0|0";

  // Keys and passwords stay out of name_, which goes into messages and reports.
  void read_address() {
    char* words = nullptr;
    const Options options(PQconninfoParse(address_.c_str(), &words));
    if (!options) {
      PQfreemem(words);
      throw InvalidArgument("[ledger] Expected an address postgresql://user@host/database, received another text. Compare it "
                            "with the manual of libpq; its words are not repeated here, they may hold the password.");
    }
    std::string host, port, database, mode;
    for (const PQconninfoOption* option = options.get(); option->keyword != nullptr; ++option) {
      const std::string keyword = option->keyword;
      std::string given = option->val == nullptr ? "" : option->val;
      if (given.empty() && option->envvar != nullptr && std::getenv(option->envvar) != nullptr) given = std::getenv(option->envvar);
      if ((keyword == "host" || keyword == "hostaddr") && !given.empty()) {
        host = given;
        is_local_ = is_local_ && is_loopback(given);
      }
      if (keyword == "port") port = given;
      if (keyword == "dbname") database = given;
      if (keyword == "sslmode") mode = given;
      if (keyword == "service" && !given.empty()) {
        throw InvalidArgument("[ledger] Expected an address that names its host, received a service. Write the host.");
      }
    }
    name_ = message("postgresql://", host, port.empty() ? "" : ":", port, "/", database);
    if (!is_local_ && mode != "verify-full") {
      throw LedgerError(message("[ledger] Expected sslmode=verify-full for a server on another machine, received ",
                                mode.empty() ? "none" : mode, " for ", name_, ". Add ?sslmode=verify-full and sslrootcert."));
    }
  }

  static bool is_loopback(const std::string& hosts) {
    std::size_t start = 0;
    while (start <= hosts.size()) {
      const std::size_t end = std::min(hosts.find(',', start), hosts.size());
      const std::string host = hosts.substr(start, end - start);
      // "127.example.org" is a name like any other.
      const bool is_127 = host.starts_with("127.") && host.find_first_not_of("0123456789.") == host.npos;
      const bool local = host.empty() || host[0] == '/' || host == "localhost" || host == "::1" || is_127;
      if (!local) return false;
      start = end + 1;
    }
    return true;
  }

  void connect() {
    connection_.reset(PQconnectdb(address_.c_str()));
    if (PQstatus(connection_.get()) != CONNECTION_OK) {
      throw LedgerError(message("[ledger] Expected a PostgreSQL server at ", name_, ", received: ",
                                trimmed(PQerrorMessage(connection_.get())), ". Check the address and that it runs."));
    }
    PQsetNoticeProcessor(connection_.get(), [](void*, const char*) {}, nullptr);
    if (!is_local_ && PQsslInUse(connection_.get()) == 0) throw LedgerError("[ledger] Expected TLS, received a connection without.");
    PQsetClientEncoding(connection_.get(), "UTF8");
    execute("SET search_path = pg_catalog");
    execute("SET synchronous_commit = on");
    execute("SET statement_timeout = '10min'");
    if (text("SHOW server_encoding") != "UTF8") throw LedgerError("[ledger] Expected a database in UTF8, received another encoding.");
    durable_ = text("SHOW fsync") == "on" && text("SHOW full_page_writes") == "on";
  }

  bool has_schema() { return text("SELECT to_regclass('hushgrad.entry') IS NOT NULL") == "t"; }
  std::int64_t hash_count() { return std::stoll(text("SELECT count(*) FROM (SELECT FROM hushgrad.entry LIMIT 1) AS first")); }

  void found(bool create, const Genesis& genesis) {
    if (!create) {
      throw LedgerError(message("[ledger] Expected a ledger, received a database without one at ", name_,
                                ". Check the address, or make one with hushgrad ledger init."));
    }
    execute("BEGIN");
    text("SELECT pg_advisory_xact_lock(1752527720, 1)");
    if (!has_schema()) {
      execute(postgres_migration());
      insert(genesis());
    }
    if (const std::string fault = commit(); !fault.empty()) throw LedgerError(message("[ledger] Expected a new ledger, received: ", fault));
  }

  [[noreturn]] void fail(const char* doing) {
    throw LedgerError(message("[ledger] Expected the server at ", name_, " to run '", std::string(doing).substr(0, 60), "', received: ",
                              trimmed(PQerrorMessage(connection_.get())), ". Check the server, and the rights of this user."));
  }

  void execute(const char* sql) {
    const Result result(PQexec(connection_.get(), sql));
    const auto status = PQresultStatus(result.get());
    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK) fail(sql);
  }

  std::string text(const char* sql) {
    const Result result(PQexec(connection_.get(), sql));
    if (PQresultStatus(result.get()) != PGRES_TUPLES_OK) fail(sql);
    return PQntuples(result.get()) == 0 ? std::string() : std::string(PQgetvalue(result.get(), 0, 0));
  }

  Result query(const char* sql, const std::vector<Value>& values) {
    std::vector<Oid> types;
    std::vector<const char*> data;
    std::vector<int> lengths, formats;
    for (const Value& one : values) {
      types.push_back(one.type);
      data.push_back(one.bytes.c_str());
      lengths.push_back(static_cast<int>(one.bytes.size()));
      formats.push_back(one.format);
    }
    Result result(PQexecParams(connection_.get(), sql, static_cast<int>(values.size()), types.data(), data.data(), lengths.data(),
                               formats.data(), 1));
    const auto status = PQresultStatus(result.get());
    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK) fail(sql);
    return result;
  }

  static std::string bytes(const PGresult* rows, int row, int column) {
    return {PQgetvalue(rows, row, column), static_cast<std::size_t>(PQgetlength(rows, row, column))};
  }
  static std::int64_t integer(const PGresult* rows, int row, int column) {
    return PQgetlength(rows, row, column) == 8 ? from_big_endian(PQgetvalue(rows, row, column)) : 0;
  }
  static std::optional<Hash> hash_in(const PGresult* rows, int row, int column) {
    Hash hash{};
    if (static_cast<std::size_t>(PQgetlength(rows, row, column)) != hash.size()) return std::nullopt;
    std::memcpy(hash.data(), PQgetvalue(rows, row, column), hash.size());
    return hash;
  }

  const std::string address_;
  std::string name_;
  bool is_local_ = true;
  bool durable_ = false;
  Connection connection_;
};

}  // namespace

std::unique_ptr<Store> open_postgres_store(const std::string& address, bool create, const Genesis& genesis) {
  return std::make_unique<PostgresStore>(address, create, genesis);
}

#endif

}  // namespace hushgrad::ledger
