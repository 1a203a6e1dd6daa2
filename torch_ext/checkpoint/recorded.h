// Whether a ledger knows a checkpoint.
#pragma once

#include <string>

#include "accounting/ledger/ledger.h"

namespace hushgrad {

/// Whether the ledger recorded a checkpoint of this digest, which save_checkpoint() does before the file appears. A file of
/// another digest was written or changed by somebody else, though he had the key.
inline bool has_checkpoint(const Ledger& ledger, const std::string& digest) {
  for (const LedgerRecord& record : ledger.records("checkpoint")) {
    if (record.fields.at("digest") == digest) return true;
  }
  return false;
}

}  // namespace hushgrad
