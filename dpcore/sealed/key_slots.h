// The two key slots of a sealed file: the data key, wrapped under a dataset's key. One slot is in use; a re-wrap writes
// the other one, so that a crash leaves the old or the new wrapping.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "dpcore/keys/kdf.h"
#include "dpcore/keys/key_provider.h"
#include "dpcore/keys/secret_bytes.h"
#include "dpcore/sealed/container_format.h"

namespace hushgrad {

///   generation 8 | generation of the provider 8 | K 2 | W 2 | key id K | wrapped data key W | random bytes up to 4000
///   | MAC 48 | SHA-384 of all before 48
/// MAC: HMAC-SHA-384 under a key derived from the data key, over SHA-384(prefix and core) and bytes 0..4000.
/// An empty slot has generation 0 and random bytes up to 4000.
struct KeySlot {
  static constexpr std::size_t kMaxKeyIdBytes = 1024;
  static constexpr std::size_t kMaxWrappedBytes = 2048;
  static constexpr std::uint64_t kMaxGeneration = INT64_MAX;

  std::size_t index = 0;  // 0: A, 1: B
  std::uint64_t generation = 0;
  WrappedKey key;
  std::array<std::byte, ContainerFormat::kSlotBytes> bytes{};  // as in the file
};

/// The bytes of a slot. InvalidArgument when key id or wrapped key are too long for it.
std::array<std::byte, ContainerFormat::kSlotBytes> encode_slot(std::uint64_t generation, const WrappedKey& key,
                                                               const SecretBytes& data_key, const Sha384& core_digest);

/// An empty slot of this file.
std::array<std::byte, ContainerFormat::kSlotBytes> encode_empty_slot(const SecretBytes& data_key,
                                                                     const Sha384& core_digest);

/// The byte before the slots: a re-wrap is going on, or was interrupted. One byte is never half written.
inline constexpr std::byte kIdle{0}, kRewrapping{0xFF};

/// What lies in the state and the two slots.
struct KeySlots {
  std::optional<KeySlot> active;  // the highest generation among the slots whose checksum fits
  std::optional<KeySlot> other;   // the other one, if its checksum fits; generation 0: empty
  bool rewrapping = false;

  bool damaged() const { return !other.has_value(); }
  /// Whether an interrupted re-wrap is to be finished.
  bool unfinished() const { return rewrapping || damaged() || other->generation != 0; }
  /// Nothing but a re-wrap may leave a slot damaged.
  bool usable() const { return active && (rewrapping || (other && other->generation == 0)); }
};
/// SealError when the state is no state, a slot whose checksum fits is malformed, or both claim one generation: nobody
/// writes that by accident.
KeySlots parse_slots(std::span<const std::byte> area);

/// SealError unless the slot belongs to this data key, prefix and core.
void check_slot(const KeySlot& slot, const SecretBytes& data_key, const Sha384& core_digest);

/// Unwraps the data key and checks that the slot belongs to this prefix and core. KeyError, SealError. Never tries the
/// other slot: it may name a key that was given up.
SecretBytes open_slot(const KeySlot& slot, const Sha384& core_digest, const KeyProvider& keys);

}  // namespace hushgrad
