// Reservations in blocks: one durable commit pays for several steps, so that the disk costs little of a step.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

namespace hushgrad::ledger {

constexpr std::int64_t kMaxBlock = 1024;

/// How many steps to reserve after a block of `previous` steps (0: none yet), whose commit took `commit_seconds` and
/// whose steps came every `step_seconds`: enough to make the commits half a per cent of the steps, but at most twice the
/// block before, so that a process that dies leaves unused at most about as many steps as it took, and at most `limit`.
std::int64_t next_block(std::int64_t previous, double commit_seconds, double step_seconds, std::int64_t limit);

/// A reservation of this process. Durable, and spent for everybody else, before it gets here.
struct Block {
  std::int64_t sequence = 0;  // of its entry
  std::int64_t count = 0;
  std::int64_t left = 0;      // certainly unused
  double commit_seconds = 0;
  std::chrono::steady_clock::time_point since{};
};

/// The blocks of one handle, by run and event key. The caller locks `mutex` around everything else.
class Holder {
 public:
  using Key = std::pair<std::string, std::string>;
  using Clock = std::chrono::steady_clock;

  Holder();

  std::mutex mutex;
  std::map<Key, Block> blocks;
  std::int64_t limit = kMaxBlock;
  std::string id;  // random; a later block of the same holder says that the one before was used up

  /// Takes one step out of the block; false when there is none left.
  bool draw(const Key& key);
  /// The size that the next block of this run and event should have.
  std::int64_t wanted(const Key& key) const;
};

}  // namespace hushgrad::ledger
