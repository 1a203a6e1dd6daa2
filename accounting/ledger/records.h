// What a ledger holds, as plain values: rows that reports and other programs read.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "accounting/accountants/interval.h"
#include "accounting/event.h"

namespace hushgrad {

/// Who trains on what, and why; recorded before the first step.
/// dataset, purpose, actor: UTF-8, 1 to 256 bytes (purpose and actor may be empty), no control characters.
/// plan_json: a JSON object of at most 1 MiB that describes the run (empty text means `{}`). Never a secret.
struct RunInfo {
  std::string dataset;
  std::string purpose;
  std::string actor;
  std::string plan_json;
  std::string team{};  // may be empty; with access rules, that of the actor
};

/// The newest entry. Kept with a checkpoint it is the anchor that reveals a ledger that was put back.
struct LedgerHead {
  std::int64_t sequence = 0;
  std::string hash;  // 96 hex digits (SHA-384)
};

/// A hard cap: the upper end of the composed epsilon at `delta` may not pass `epsilon`.
struct Budget {
  double epsilon = 0;
  double delta = 0;
  std::int64_t sequence = 0;  // of the entry that set it
  std::int64_t time = 0;      // microseconds since 1970-01-01 UTC
  double warning = 0;         // epsilon from which people should be told; 0: none
  std::string purpose{};      // only runs with this purpose count; empty: all
  std::string actor{};        // only runs of this actor count; empty: all
  std::string team{};         // only runs of this team count; empty: all
  std::string period{};       // only what was charged in it counts (period.h); empty: always
};

/// A budget and what it counts now.
struct BudgetStatus {
  std::string dataset;
  Budget budget;
  Interval spent;             // epsilon at the budget's delta
  bool warns = false;         // spent.upper has reached the warning level
  std::int64_t since = 0;     // begin of the period, microseconds since 1970 UTC; 0: all
};

struct RunRecord {
  std::string run_id;  // 32 hex digits
  RunInfo info;
  std::string status;  // "running", "completed" or "failed"; a run that was killed stays "running"
  std::int64_t steps = 0;  // that are spent, with those that are reserved
  std::int64_t refusals = 0;
  std::int64_t sequence = 0;
  std::int64_t started = 0;                // microseconds since 1970-01-01 UTC
  std::optional<std::int64_t> finished{};  // likewise
  /// How many of `steps` are in blocks that nobody has accounted for yet: the process that reserved them still trains, or
  /// it died. They are spent; at most this many of them never happened.
  std::int64_t reserved = 0;
};

/// One step that is spent. The steps of one block share its sequence and time.
struct StepRecord {
  std::int64_t sequence = 0;
  std::string run_id;
  std::string dataset;
  Event event = Event::no_op();
  std::int64_t count = 1;  // how often the event happened: every step is a row of its own
  std::int64_t time = 0;   // microseconds since 1970-01-01 UTC
};

/// One row of the chain as it is stored.
struct LedgerEntry {
  std::int64_t sequence = 0;
  std::int64_t time = 0;  // microseconds since 1970-01-01 UTC; never goes back along the chain
  std::string kind;       // "genesis", "budget", "run", "event", "charge", ...: docs/ledger.md
  std::string payload;    // canonical JSON
  std::string previous;   // 96 hex digits
  std::string hash;       // 96 hex digits
};

/// The verdict over the whole chain.
struct VerifyResult {
  bool ok = false;
  std::int64_t entries = 0;    // how many were found good, counted from the first
  std::int64_t first_bad = 0;  // sequence of the first bad entry; 0 when ok, or when no single entry is to blame
  std::string reason;          // empty when ok
};

}  // namespace hushgrad
