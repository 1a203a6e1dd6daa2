#include "accounting/ledger/session.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>

#include "accounting/ledger/schema.h"
#include "accounting/ledger/table.h"
#include "accounting/ledger/verify.h"
#include "dpcore/error.h"

namespace hushgrad::ledger {
namespace {

std::int64_t microseconds_now() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::microseconds>(now).count();
}

void found_ledger(Database& database) {
  Transaction transaction(database, true);
  create_schema(database);
  Batch batch{State{}};
  batch.append(kGenesis, GenesisPayload{random_id(), kSchemaVersion});
  for (const Entry& entry : batch.entries()) insert(database, entry);
  if (transaction.commit() != 0) database.fail("COMMIT");
}

// A ledger gets its name only once it is whole, so an empty or half-made file under that name is always a lost ledger.
void make_ledger_file(const std::string& path) {
  const std::string sibling = make_sibling(path);
  try {
    Database database(sibling);
    found_ledger(database);
  } catch (...) {
    ::unlink(sibling.c_str());
    ::unlink((sibling + "-journal").c_str());
    throw;
  }
  publish(sibling, path);
}

}  // namespace

Batch::Batch(const State& state) : sequence_(state.sequence), time_(state.time), hash_(state.hash) {}

std::int64_t Batch::now() {
  time_ = std::max(time_, microseconds_now());
  return time_;
}

std::int64_t Batch::append_encoded(std::string_view kind, std::string payload) {
  Entry entry{++sequence_, now(), std::string(kind), std::move(payload), hash_, {}};
  hash_ = entry.hash = entry_hash(entry);
  entries_.push_back(std::move(entry));
  return sequence_;
}

Session::Session(const std::string& path, bool create) : location_(locate(path)), owner_(getpid()) {
  const std::string& where = location_.path;
  if (location_.memory) {
    database_ = std::make_unique<Database>(where);
    found_ledger(*database_);
    return;
  }
  if (!is_ledger_file(where)) {
    if (!create) {
      throw LedgerError(message("[ledger] Expected a ledger, received no file at '", where,
                                "'. Check the path, or make one with hushgrad ledger init."));
    }
    make_ledger_file(where);
    is_ledger_file(where);
  }
  identity_ = identify(where);
  database_ = std::make_unique<Database>(where);
  check_identity();
  check_header(*database_, where);
  recall();
}

// What this user has seen of the ledger before, in whatever process.
void Session::recall() {
  Transaction transaction(*database_, false);
  try {
    catch_up();
  } catch (const LedgerError&) {
    return;  // a broken chain still opens, for the auditor; every other call says what is wrong
  }
  high_water_.emplace(state_.ledger_id);
  const auto seen = high_water_->seen();
  if (seen && !is_there(*seen)) missing_.push_back(*seen);
}

bool Session::is_there(const LedgerHead& head) {
  const auto hash = hash_at(*database_, head.sequence);
  return (hash && to_hex(*hash) == head.hash) || state_.repaired.count(head.hash) > 0;
}

std::vector<LedgerHead> Session::still_missing() {
  std::erase_if(missing_, [this](const LedgerHead& head) { return is_there(head); });
  return missing_;
}

bool Session::expect(const LedgerHead& head) {
  return read([&](State&, Database&) {
    if (is_there(head)) return true;
    missing_.push_back(head);
    return false;
  });
}

std::vector<LedgerHead> Session::missing() {
  return read([&](State&, Database&) { return still_missing(); });
}

bool Session::is_own_process() const { return getpid() == owner_; }

std::unique_lock<std::mutex> Session::enter() {
  if (!is_own_process()) {
    throw LedgerError("[ledger] Expected the process that opened the ledger, received a child made by fork(). Open the "
                      "ledger again in the child.");
  }
  return std::unique_lock(mutex_);
}

void Session::check_identity() const {
  if (location_.memory || identify(location_.path) == identity_) return;
  throw LedgerError(message("[ledger] Expected the ledger that was opened, received another file at '", location_.path,
                            "'. Put the ledger back and open it again; what was charged counts as spent."));
}

void Session::check_usable() const {
  if (!unusable_.empty()) throw LedgerError(unusable_);
  check_identity();
}

void Session::give_up(const std::string& why) {
  unusable_ = why;
  throw LedgerError(why);
}

void Session::give_up_on_chain(const std::string& fault) {
  give_up(message("[ledger] Expected an unbroken chain in '", location_.path, "', received a bad one: ", fault,
                  ". Keep the file, run hushgrad ledger verify, and restore a copy that verifies."));
}

void Session::check_schema() {
  const std::int64_t cookie = database_->integer("PRAGMA schema_version");
  if (cookie == schema_cookie_) return;
  if (const std::string fault = schema_fault(*database_); !fault.empty()) give_up_on_chain(fault);
  schema_cookie_ = cookie;
}

// Inside a transaction: applies what other handles appended since the last call.
void Session::catch_up() {
  check_schema();
  if (state_.sequence > 0 && hash_at(*database_, state_.sequence) != state_.hash) {
    give_up_on_chain(message("entry ", state_.sequence, " was here before and is gone or changed"));
  }
  if (const std::string fault = replay(*database_, state_, {}); !fault.empty()) {
    give_up_on_chain(message("entry ", state_.sequence + 1, ": ", fault));
  }
}

void Session::check() {
  const auto lock = enter();
  check_usable();
}

void Session::write(const std::function<void(State&, Batch&)>& body, bool is_repair) {
  const auto lock = enter();
  check_usable();
  if (database_->read_only()) {
    throw LedgerError(message("[ledger] Expected a ledger that can be written, received '", location_.path,
                              "', which is read-only for this user. Change its permissions or ask its owner."));
  }
  Transaction transaction(*database_, true);
  catch_up();
  if (const auto lost = still_missing(); !lost.empty() && !is_repair) {
    throw LedgerError(message("[ledger] Expected a ledger that holds entry ", lost.front().sequence, " (hash ",
                              lost.front().hash.substr(0, 16), "...), which was seen before, received one that does not: '",
                              location_.path, "' was put back from an older copy, or is another branch. Nothing is charged. "
                              "Restore the newest copy, or have two people accept the loss: hushgrad ledger repair."));
  }
  Batch batch(state_);
  if (state_.schema < kSchemaVersion) {
    batch.append(kMigration, MigrationPayload{state_.schema, kSchemaVersion});
    migrate_schema(*database_);
  }
  const std::size_t own = batch.entries().size();
  body(state_, batch);
  if (batch.entries().size() == own) return;
  for (const Entry& entry : batch.entries()) insert(*database_, entry);
  // Before the commit: an entry that could not be read back must never get into the file.
  apply(batch);
  if (const int code = transaction.commit(); code != 0) {
    // Whether the entries reached the disk is unknown. A second attempt could be told "done" by a kernel that has
    // dropped the dirty pages, so there is none.
    give_up(message("[ledger] Expected a durable commit to '", location_.path, "', received SQLite code ", code,
                    ". This handle is closed for good and nothing may be released. Check the disk, then open the ledger "
                    "again; what it then holds is spent."));
  }
  try {
    // The file may have been replaced while the commit went to the one that is now without a name.
    check_identity();
  } catch (const LedgerError& error) {
    give_up(error.what());
  }
  std::erase_if(missing_, [this](const LedgerHead& head) { return state_.repaired.count(head.hash) > 0; });
  if (high_water_ && missing_.empty()) high_water_->remember({state_.sequence, to_hex(state_.hash)});
}

void Session::apply(const Batch& batch) {
  for (const Entry& entry : batch.entries()) {
    const std::string fault = state_.apply(entry);
    if (!fault.empty()) give_up_on_chain(message("entry ", entry.sequence, ", not written: ", fault));
  }
}

VerifyResult Session::verify() {
  return inspect([this](Database& database) { return verify_file(database, {state_.sequence, to_hex(state_.hash)}); });
}

}  // namespace hushgrad::ledger
