#include "accounting/ledger/block.h"

#include <algorithm>
#include <cmath>

#include "accounting/ledger/chain.h"

namespace hushgrad::ledger {
namespace {

constexpr double kShare = 0.005;           // of the time of the steps that commits may take
constexpr double kShortestStep = 1e-6;     // seconds; a clock that stands still is no reason for an endless block

double seconds(Holder::Clock::duration time) { return std::chrono::duration<double>(time).count(); }

}  // namespace

std::int64_t next_block(std::int64_t previous, double commit_seconds, double step_seconds, std::int64_t limit) {
  if (previous < 1) return 1;
  const double needed = std::ceil(commit_seconds / (kShare * std::max(step_seconds, kShortestStep)));
  const auto most = static_cast<double>(std::min(limit, 2 * previous));
  return std::max<std::int64_t>(1, static_cast<std::int64_t>(std::min(needed, most)));
}

Holder::Holder() : id(random_id()) {}

bool Holder::draw(const Key& key) {
  const auto found = blocks.find(key);
  if (found == blocks.end() || found->second.left == 0) return false;
  --found->second.left;
  return true;
}

std::int64_t Holder::wanted(const Key& key) const {
  const auto found = blocks.find(key);
  if (found == blocks.end()) return 1;
  const Block& block = found->second;
  const double step = seconds(Clock::now() - block.since) / static_cast<double>(block.count);
  return next_block(block.count, block.commit_seconds, step, limit);
}

}  // namespace hushgrad::ledger
