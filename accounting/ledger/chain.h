// The hash chain: what makes an edited, dropped or reordered entry visible. Layout: docs/ledger.md.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace hushgrad::ledger {

using Hash = std::array<unsigned char, 48>;  // SHA-384

/// The last microsecond of 9999, UTC. No entry is later, so that its time, and one some years after it, can be computed with.
constexpr std::int64_t kLatestTime = 253'402'300'799'999'999;

/// An entry as it goes into the table.
struct Entry {
  std::int64_t sequence = 0;
  std::int64_t time = 0;  // microseconds since 1970-01-01 UTC
  std::string kind;
  std::string payload;
  Hash previous{};
  Hash hash{};
};

/// SHA-384 over a domain word and every field but `hash`, each behind its length, so that no two entries share an
/// encoding. The first entry has a `previous` of zeros.
Hash entry_hash(const Entry& entry);

/// Lower-case hex.
std::string to_hex(std::string_view bytes);
std::string to_hex(const Hash& hash);

/// 128 bits from the operating system as 32 hex digits. Throws IoError when there are none.
std::string random_id();

}  // namespace hushgrad::ledger
