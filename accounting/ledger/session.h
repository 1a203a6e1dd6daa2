// One open ledger file: its transactions, and the state that follows the entries in it.
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "accounting/ledger/high_water.h"
#include "accounting/ledger/payload.h"
#include "accounting/ledger/records.h"
#include "accounting/ledger/state.h"
#include "accounting/ledger/store.h"

namespace hushgrad::ledger {

/// Entries of one transaction, each linked to the one before it.
class Batch {
 public:
  explicit Batch(const State& state);

  /// Returns the sequence the entry will have.
  template <typename Payload>
  std::int64_t append(std::string_view kind, const Payload& payload) {
    return append_encoded(kind, encode(payload));
  }
  /// Appends what encode() made.
  std::int64_t append_as_it_is(std::string_view kind, std::string payload) { return append_encoded(kind, std::move(payload)); }
  /// Drops what was appended since `count` entries.
  void take_back(std::size_t count);
  /// The largest time that any entry, or the clock at the first call, has seen: a clock that is set back does not turn it
  /// back. One time for all entries of a transaction: what was decided then still holds when it is read again.
  std::int64_t now();
  std::int64_t sequence() const { return sequence_; }
  /// Hash of the entry that the next one follows.
  const Hash& head() const { return hash_; }
  const std::vector<Entry>& entries() const { return entries_; }

 private:
  std::int64_t append_encoded(std::string_view kind, std::string payload);

  std::int64_t sequence_;
  std::int64_t time_;
  Hash hash_, before_;
  bool has_time_ = false;
  std::vector<Entry> entries_;
};

/// Thread-safe. Once the chain is found broken, or a commit ended in an unknown state, every further read() and write()
/// throws the same LedgerError.
class Session {
 public:
  /// A new ledger starts with `first` where one is given.
  Session(const std::string& path, bool create, const Entry* first = nullptr);

  /// Absolute path, ":memory:", or the address of a server without its password.
  const std::string& path() const { return path_; }
  bool durable() const { return store_->durable(); }
  /// Whether this process opened the session. A child made by fork() must not use it, nor even close it: closing would
  /// touch the journal and the locks of the parent.
  bool is_own_process() const;

  /// Runs body(State&, Store&) on the newest entries, in one read transaction.
  template <typename Body>
  auto read(Body&& body) {
    const auto lock = enter();
    check_usable();
    StoreTransaction transaction(*store_, false);
    catch_up();
    return body(state_, *store_);
  }

  /// Throws when write() certainly would: a fork, another file under the name, an earlier failure. Reads no entry.
  void check();

  /// Runs `body` on the newest entries under the file's one write lock, then makes what it appended durable: what
  /// `body` saw cannot change before the commit. Appends nothing when `body` throws.
  /// Throws LedgerError when an entry is missing that somebody has seen, or the ledger has moved away, unless
  /// `even_if_closed`.
  void write(const std::function<void(State&, Batch&)>& body, bool even_if_closed = false);
  /// Appends entries as they are, after the newest; `entries` must begin with all that is there.
  void append_as_they_are(const std::vector<Entry>& entries);

  /// `head` was in this ledger once. When it is not now, writes are refused until two people have repaired the ledger.
  /// Returns whether it is there, or was repaired.
  bool expect(const LedgerHead& head);
  /// What is missing and not repaired: the ledger was put back.
  std::vector<LedgerHead> missing();

  /// Runs body(Store&) whatever state the chain is in.
  template <typename Body>
  auto inspect(Body&& body) {
    const auto lock = enter();
    store_->check_identity();
    return body(*store_);
  }

  /// Re-reads the whole file; see Ledger::verify().
  VerifyResult verify();

 private:
  std::unique_lock<std::mutex> enter();
  void check_usable();
  bool is_there(const LedgerHead& head);
  std::vector<LedgerHead> still_missing();
  void recall();
  void trust_what_was_seen();
  void compare_with_what_was_seen();
  void check_open();
  void commit(const std::vector<Entry>& entries);
  void catch_up();
  void apply(const std::vector<Entry>& entries);
  [[noreturn]] void give_up(const std::string& why);
  [[noreturn]] void give_up_on_chain(const std::string& fault);

  pid_t owner_;
  std::unique_ptr<Store> store_;
  const std::string path_;
  std::mutex mutex_;
  State state_;
  std::vector<LedgerHead> missing_;         // heads that somebody has seen and the chain had not when it was asked
  std::optional<HighWater> high_water_;     // none for a ledger in memory
  std::string compared_;                    // the hash that was remembered when it was last compared
  std::string unusable_;             // why every further call is refused; empty while all is well
};

}  // namespace hushgrad::ledger
