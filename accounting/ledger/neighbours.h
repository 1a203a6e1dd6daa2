// What a run's epsilon compares: data sets that differ by one record or one user, added or replaced. Epsilons of different
// comparisons cannot be added up: a user-level run bounds a user with all records added, which says nothing of one record more
// for a user who stays (twice the distance), and a record-level run says nothing of all records of a user.
#pragma once

#include <compare>
#include <string>

namespace hushgrad::ledger {

struct Neighbours {
  std::string unit = "record";
  std::string adjacency{};  // empty: whatever the dataset's description says

  auto operator<=>(const Neighbours&) const = default;
};

/// "unit" and "adjacency" of a run's plan; a plan that names no unit is about records.
Neighbours neighbours_of(const std::string& plan_json);

/// Whether epsilons of both can be added up. An adjacency that nobody named contradicts none.
bool agree(const Neighbours& one, const Neighbours& other);
bool agree(const std::string& adjacency, const std::string& other);

/// For messages: "record, add_or_remove_one".
std::string text_of(const Neighbours& neighbours);

}  // namespace hushgrad::ledger
