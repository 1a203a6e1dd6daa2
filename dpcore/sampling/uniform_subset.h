// A few of many, every choice equally likely.
#pragma once

#include <algorithm>
#include <cstdint>
#include <unordered_set>
#include <vector>

#include "dpcore/random/exact.h"

namespace hushgrad {

/// A uniform choice of `count` of the numbers [0, bound), ascending; 0 <= count <= bound. Time and memory follow count.
/// Floyd's algorithm (Bentley and Floyd 1987, "A sample of brilliance").
template <typename Words>
std::vector<std::int64_t> uniform_subset(Words& words, std::int64_t bound, std::int64_t count) {
  std::unordered_set<std::int64_t> chosen;
  chosen.reserve(static_cast<std::size_t>(count));
  for (std::int64_t last = bound - count; last < bound; ++last) {
    const auto pick = static_cast<std::int64_t>(uniform_below(words, static_cast<std::uint64_t>(last) + 1));
    if (!chosen.insert(pick).second) chosen.insert(last);
  }
  std::vector<std::int64_t> subset(chosen.begin(), chosen.end());
  std::sort(subset.begin(), subset.end());
  return subset;
}

}  // namespace hushgrad
