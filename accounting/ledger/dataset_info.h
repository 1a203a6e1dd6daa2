// What a ledger knows of a dataset beside its charges, and the papers around a run: releases, approvals, policies.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace hushgrad {

/// What the data is and what it may be used for. Names: UTF-8 of at most 256 bytes; empty where unknown.
struct DatasetInfo {
  std::string dataset;
  std::string unit;                   // of privacy: "record", "patient", ...
  std::string adjacency;              // "add_or_remove_one", "replace_one", "zero_out" or empty
  std::string size_class;             // a coarse public size: "1e4 to 1e5"
  std::vector<std::string> purposes;  // the only ones a run may have; empty: any
  std::int64_t retention = 0;         // no run and no step from this time on (microseconds since 1970 UTC); 0: none
  std::vector<std::string> parents;   // datasets it was made from: what it spends, they spend
  std::string transformation;         // how it was made from them, with a version
  std::string actor;                  // who says so
};

/// A cap on what part of a dataset's runs may spend together, with those of the datasets made from it.
struct BudgetLimit {
  std::string dataset;
  double epsilon = 0;
  double delta = 0;
  std::string purpose{};  // only runs with this purpose count; empty: all
  std::string actor{};    // only runs of this actor (a person or a team) count; empty: all
  double warning = 0;     // epsilon from which people should be told; 0: none
  std::string set_by{};
  std::string team{};    // only runs of this team count; empty: all
  std::string period{};  // only what was charged in it counts, see period.h; empty: always
};

/// An entry that spends nothing: a release, an approval, a policy, an audit entry, an actor, ... Fields: docs/ledger.md.
struct LedgerRecord {
  std::string kind;
  std::map<std::string, std::string> fields;
  std::int64_t sequence = 0;
  std::int64_t time = 0;  // microseconds since 1970-01-01 UTC
};

}  // namespace hushgrad
