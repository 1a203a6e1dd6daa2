#include "accounting/ledger/session.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "accounting/ledger/schema.h"
#include "accounting/ledger/verify.h"
#include "dpcore/error.h"

namespace hushgrad::ledger {
namespace {

std::int64_t microseconds_now() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::microseconds>(now).count();
}

// Empty for a payload that is no genesis.
std::string json_id(const std::string& payload) {
  try {
    return decode_genesis(payload).ledger_id;
  } catch (const Error&) {
    return {};
  }
}

Entry genesis() {
  Batch batch{State{}};
  batch.append(kGenesis, GenesisPayload{random_id(), kSchemaVersion});
  return batch.entries().front();
}

}  // namespace

Batch::Batch(const State& state) : sequence_(state.sequence), time_(state.time), hash_(state.hash), before_(state.hash) {}

std::int64_t Batch::now() {
  if (!std::exchange(has_time_, true)) time_ = std::max(time_, microseconds_now());
  return time_;
}

void Batch::take_back(std::size_t count) {
  sequence_ -= static_cast<std::int64_t>(entries_.size() - count);
  entries_.resize(count);
  hash_ = entries_.empty() ? before_ : entries_.back().hash;
}

std::int64_t Batch::append_encoded(std::string_view kind, std::string payload) {
  Entry entry{++sequence_, now(), std::string(kind), std::move(payload), hash_, {}};
  hash_ = entry.hash = entry_hash(entry);
  entries_.push_back(std::move(entry));
  return sequence_;
}

Session::Session(const std::string& path, bool create, const Entry* first)
    : owner_(getpid()),
      store_(open_store(path, create, [first] { return first == nullptr ? genesis() : *first; })),
      path_(store_->name()) {
  recall();
}

// What this user has seen of the ledger before, in whatever process.
void Session::recall() {
  StoreTransaction transaction(*store_, false);
  try {
    trust_what_was_seen();
    catch_up();
  } catch (const LedgerError&) {
    return;  // a broken chain still opens, for the auditor; every other call says what is wrong
  }
  if (path_ == ":memory:") return;
  if (!high_water_) high_water_.emplace(state_.ledger_id);
  compare_with_what_was_seen();
}

// This user's own handle checked every signature up to what it remembers; the hash there binds all entries before it, and the
// chain up to it is followed again. verify() checks all signatures anew.
void Session::trust_what_was_seen() {
  if (path_ == ":memory:") return;
  std::string id;
  store_->read(0, 1, [&](const Entry& entry, const std::string& fault) {
    if (fault.empty() && entry.kind == kGenesis) id = json_id(entry.payload);
    return false;
  });
  if (id.empty()) return;
  high_water_.emplace(id);
  const auto seen = high_water_->seen();
  const auto hash = seen ? store_->hash_at(seen->sequence) : std::nullopt;
  if (hash && to_hex(*hash) == seen->hash) state_.trusted = seen->sequence;
}

// Inside a transaction: what other handles of this user have seen by now. One on a copy of this ledger has seen another branch.
void Session::compare_with_what_was_seen() {
  const auto seen = high_water_ ? high_water_->seen() : std::nullopt;
  if (!seen || seen->hash == compared_) return;
  compared_ = seen->hash;
  if (!is_there(*seen)) missing_.push_back(*seen);
}

bool Session::is_there(const LedgerHead& head) {
  const auto hash = store_->hash_at(head.sequence);
  return (hash && to_hex(*hash) == head.hash) || state_.repaired.count(head.hash) > 0;
}

std::vector<LedgerHead> Session::still_missing() {
  std::erase_if(missing_, [this](const LedgerHead& head) { return is_there(head); });
  return missing_;
}

bool Session::expect(const LedgerHead& head) {
  return read([&](State&, Store&) {
    if (is_there(head)) return true;
    missing_.push_back(head);
    return false;
  });
}

std::vector<LedgerHead> Session::missing() {
  return read([&](State&, Store&) { return still_missing(); });
}

bool Session::is_own_process() const { return getpid() == owner_; }

std::unique_lock<std::mutex> Session::enter() {
  if (!is_own_process()) {
    throw LedgerError("[ledger] Expected the process that opened the ledger, received a child made by fork(). Open the "
                      "ledger again in the child.");
  }
  return std::unique_lock(mutex_);
}

void Session::check_usable() {
  if (!unusable_.empty()) throw LedgerError(unusable_);
  store_->check_identity();
}

void Session::give_up(const std::string& why) {
  unusable_ = why;
  throw LedgerError(why);
}

void Session::give_up_on_chain(const std::string& fault) {
  give_up(message("[ledger] Expected an unbroken chain in '", path_, "', received a bad one: ", fault,
                  ". Keep the file, run hushgrad ledger verify, and restore a copy that verifies."));
}

// Inside a transaction: applies what other handles appended since the last call.
void Session::catch_up() {
  if (const std::string fault = store_->schema_fault(); !fault.empty()) give_up_on_chain(fault);
  if (state_.sequence > 0 && store_->hash_at(state_.sequence) != state_.hash) {
    give_up_on_chain(message("entry ", state_.sequence, " was here before and is gone or changed"));
  }
  if (const std::string fault = replay(*store_, state_, {}); !fault.empty()) {
    give_up_on_chain(message("entry ", state_.sequence + 1, ": ", fault));
  }
}

// Inside a transaction.
void Session::check_open() {
  if (state_.moved) {
    throw LedgerError(message("[ledger] Expected the ledger that is in use, received '", path_,
                              "', which was moved to another place. Nothing is charged here any more; open the other one (hushgrad "
                              "ledger history says where it is)."));
  }
  const auto lost = still_missing();
  if (lost.empty()) return;
  throw LedgerError(message("[ledger] Expected a ledger that holds entry ", lost.front().sequence, " (hash ",
                            lost.front().hash.substr(0, 16), "...), which was seen before, received one that does not: '",
                            path_, "' was put back from an older copy, or is another branch. Nothing is charged. "
                            "Restore the newest copy, or have two people accept the loss: hushgrad ledger repair."));
}

void Session::check() {
  const auto lock = enter();
  check_usable();
}

void Session::write(const std::function<void(State&, Batch&)>& body, bool even_if_closed) {
  const auto lock = enter();
  check_usable();
  if (store_->read_only()) {
    throw LedgerError(message("[ledger] Expected a ledger that can be written, received '", path_,
                              "', which is read-only for this user. Change its permissions or ask its owner."));
  }
  StoreTransaction transaction(*store_, true);
  catch_up();
  compare_with_what_was_seen();
  if (!even_if_closed) check_open();
  Batch batch(state_);
  if (state_.schema < kSchemaVersion) {
    batch.append(kMigration, MigrationPayload{state_.schema, kSchemaVersion});
    store_->migrate();
  }
  const std::size_t own = batch.entries().size();
  body(state_, batch);
  if (batch.entries().size() == own) return;
  commit(batch.entries());
}

void Session::append_as_they_are(const std::vector<Entry>& entries) {
  const auto lock = enter();
  check_usable();
  StoreTransaction transaction(*store_, true);
  catch_up();
  const auto known = static_cast<std::size_t>(state_.sequence);
  if (entries.size() < known || entries[known - 1].hash != state_.hash) {
    throw LedgerError(message("[ledger] Expected an empty place or an earlier part of the same ledger, received '", path_,
                              "', which holds something else. Give a place without a ledger."));
  }
  commit({entries.begin() + static_cast<std::ptrdiff_t>(known), entries.end()});
}

// Inside a write transaction.
void Session::commit(const std::vector<Entry>& entries) {
  for (const Entry& entry : entries) store_->insert(entry);
  // Before the commit: an entry that could not be read back must never get into the file.
  apply(entries);
  if (const std::string fault = store_->commit(); !fault.empty()) {
    // Whether the entries reached the disk is unknown. A second attempt could be told "done" by a kernel that has
    // dropped the dirty pages, so there is none.
    give_up(message("[ledger] Expected a durable commit to '", path_, "', received ", fault,
                    ". This handle is closed for good and nothing may be released. Check the disk, then open the ledger "
                    "again; what it then holds is spent."));
  }
  try {
    // The file may have been replaced while the commit went to the one that is now without a name.
    store_->check_identity();
  } catch (const LedgerError& error) {
    give_up(error.what());
  }
  std::erase_if(missing_, [this](const LedgerHead& head) { return state_.repaired.count(head.hash) > 0; });
  if (!high_water_ || !missing_.empty()) return;
  compared_ = to_hex(state_.hash);
  high_water_->remember({state_.sequence, compared_}, state_.repaired);
}

void Session::apply(const std::vector<Entry>& entries) {
  for (const Entry& entry : entries) {
    const std::string fault = state_.apply(entry);
    if (!fault.empty()) give_up_on_chain(message("entry ", entry.sequence, ", not written: ", fault));
  }
}

VerifyResult Session::verify() {
  const VerifyResult verdict = inspect([this](Store& store) { return verify_store(store, {state_.sequence, to_hex(state_.hash)}); });
  if (!verdict.ok || !unusable_.empty()) return verdict;
  const std::vector<LedgerHead> lost = missing();
  if (state_.moved) return verdict;  // what came later was seen in the other place
  for (const LedgerHead& head : lost) {
    if (head.sequence > verdict.entries) return {false, verdict.entries, verdict.entries + 1, message("it, up to ", head.sequence, ", was seen before and is gone")};
    return {false, head.sequence - 1, head.sequence, "it, or one before it, is another than the one that was seen before"};
  }
  return verdict;
}

}  // namespace hushgrad::ledger
