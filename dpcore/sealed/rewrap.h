// Wraps the data key of a sealed file anew, under the key that its dataset has now. The data stays as it is.
#pragma once

#include <cstdint>
#include <string>

#include "dpcore/keys/key_provider.h"

namespace hushgrad {

struct Rewrapped {
  bool changed = false;         // false: it was under the dataset's active key already
  std::string from, to;         // key ids
  std::uint64_t generation = 0; // of the slot in use
};

/// Opens the file with `from` and wraps its data key under the dataset's active key in `to`; both may be one.
/// Writes 8 KiB and takes four fsyncs, whatever the length of the file. At every moment, also after a kill, one slot is
/// whole: the file is marked, the unused slot is written, made durable and read back, the old one is cleared, so that a key
/// that was given up opens nothing but older copies, and the mark is taken back. Readers that have the file open are not disturbed; two re-wraps of one
/// file wait for each other. Whoever kept an old copy and the old key can still open that copy.
/// Errors: as Container; IoError (also when the file may not be written); the file then opens as before or as after.
Rewrapped rewrap(const std::string& path, const KeyProvider& from, const KeyProvider& to);
Rewrapped rewrap(const std::string& path, const KeyProvider& keys);

}  // namespace hushgrad
