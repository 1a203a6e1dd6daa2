// What this user has seen of a ledger, kept away from it: a ledger that is put back from an older copy is noticed.
#pragma once

#include <optional>
#include <string>
#include <unordered_set>

#include "accounting/ledger/records.h"

namespace hushgrad::ledger {

/// One small file a ledger in $HUSHGRAD_STATE_DIR, else $XDG_STATE_HOME/hushgrad, else ~/.local/state/hushgrad. Where
/// none of these can be written nothing is remembered: it is a help, not a promise. Never throws.
class HighWater {
 public:
  explicit HighWater(const std::string& ledger_id);

  /// The newest entry that this user has seen; none when nothing is remembered, or nothing that can be read.
  std::optional<LedgerHead> seen() const;
  /// Remembers `head` unless a later entry is remembered, one whose hash is not among those `given_up`. By a rename, so that a reader
  /// finds one or the other; not synced: after a power cut it may be older.
  void remember(const LedgerHead& head, const std::unordered_set<std::string>& given_up = {}) const;

 private:
  std::string path_;  // empty: nowhere
};

}  // namespace hushgrad::ledger
