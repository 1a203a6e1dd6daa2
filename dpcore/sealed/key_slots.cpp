#include "dpcore/sealed/key_slots.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "dpcore/error.h"
#include "dpcore/keys/bytes.h"

namespace hushgrad {
namespace {

using Format = ContainerFormat;

constexpr std::size_t kFixedBytes = 20;
constexpr std::size_t kMacAt = 4000;
constexpr std::size_t kChecksumAt = kMacAt + Format::kMacBytes;
static_assert(kChecksumAt + sizeof(Sha384) == Format::kSlotBytes);
static_assert(kFixedBytes + KeySlot::kMaxKeyIdBytes + KeySlot::kMaxWrappedBytes <= kMacAt);

Sha384 slot_mac(const SecretBytes& data_key, const Sha384& core_digest, std::span<const std::byte> slot) {
  SecretBytes key(sizeof(Sha384));
  hkdf_expand_sha384(data_key.bytes(), text_bytes(Format::kSlotKeyLabel), key.bytes());
  std::vector<std::byte> covered;
  append(covered, core_digest);
  append(covered, slot.first(kMacAt));
  return hmac_sha384(key.bytes(), covered);
}

[[noreturn]] void malformed() {
  throw SealError(
      "[open_sealed] Expected key slots as hushgrad writes them, received others. Do not use this file.");
}

// The slot whose checksum fits.
KeySlot parse_slot(std::size_t index, std::span<const std::byte> bytes) {
  KeySlot slot;
  slot.index = index;
  slot.generation = read_big_endian(bytes.first(8));
  std::copy(bytes.begin(), bytes.end(), slot.bytes.begin());
  if (slot.generation == 0) return slot;
  const auto key_id_bytes = static_cast<std::size_t>(read_big_endian(bytes.subspan(16, 2)));
  const auto wrapped_bytes = static_cast<std::size_t>(read_big_endian(bytes.subspan(18, 2)));
  if (slot.generation > KeySlot::kMaxGeneration || key_id_bytes == 0 ||
      key_id_bytes > KeySlot::kMaxKeyIdBytes || wrapped_bytes == 0 || wrapped_bytes > KeySlot::kMaxWrappedBytes) {
    malformed();
  }
  const auto key_id = bytes.subspan(kFixedBytes, key_id_bytes);
  const auto wrapped = bytes.subspan(kFixedBytes + key_id_bytes, wrapped_bytes);
  const bool printable = std::all_of(key_id.begin(), key_id.end(), [](std::byte b) {
    return b > std::byte{0x20} && b < std::byte{0x7F};
  });
  if (!printable) malformed();
  slot.key.key_id.assign(reinterpret_cast<const char*>(key_id.data()), key_id.size());
  slot.key.generation = read_big_endian(bytes.subspan(8, 8));
  slot.key.bytes.assign(wrapped.begin(), wrapped.end());
  return slot;
}

// Fills up with random bytes, so that no two slots have anything in common, and authenticates.
std::array<std::byte, Format::kSlotBytes> finish(std::vector<std::byte> out, const SecretBytes& data_key,
                                                 const Sha384& core_digest) {
  const std::size_t used = out.size();
  out.resize(kMacAt);
  fill_random(std::span(out).subspan(used));
  append(out, slot_mac(data_key, core_digest, out));
  append(out, sha384(out));
  std::array<std::byte, Format::kSlotBytes> slot;
  std::copy(out.begin(), out.end(), slot.begin());
  return slot;
}

}  // namespace

std::array<std::byte, Format::kSlotBytes> encode_empty_slot(const SecretBytes& data_key, const Sha384& core_digest) {
  return finish(std::vector<std::byte>(8), data_key, core_digest);
}

std::array<std::byte, Format::kSlotBytes> encode_slot(std::uint64_t generation, const WrappedKey& key,
                                                      const SecretBytes& data_key, const Sha384& core_digest) {
  if (key.key_id.empty() || key.key_id.size() > KeySlot::kMaxKeyIdBytes || key.bytes.empty() ||
      key.bytes.size() > KeySlot::kMaxWrappedBytes) {
    throw InvalidArgument(message("[write_sealed] Expected a key id of 1..", KeySlot::kMaxKeyIdBytes,
                                  " and a wrapped key of 1..", KeySlot::kMaxWrappedBytes, " bytes, received ",
                                  key.key_id.size(), " and ", key.bytes.size(), ". Use another key provider."));
  }
  std::vector<std::byte> out;
  append_big_endian(out, generation, 8);
  append_big_endian(out, key.generation, 8);
  append_big_endian(out, key.key_id.size(), 2);
  append_big_endian(out, key.bytes.size(), 2);
  append(out, text_bytes(key.key_id));
  append(out, key.bytes);
  return finish(std::move(out), data_key, core_digest);
}

KeySlots parse_slots(std::span<const std::byte> area) {
  KeySlots found;
  if (area[0] != kIdle && area[0] != kRewrapping) malformed();
  found.rewrapping = area[0] == kRewrapping;
  std::vector<KeySlot> whole;
  for (std::size_t i = 0; i < Format::kSlots; ++i) {
    const auto bytes = area.subspan(1 + i * Format::kSlotBytes, Format::kSlotBytes);
    const Sha384 checksum = sha384(bytes.first(kChecksumAt));
    if (std::equal(checksum.begin(), checksum.end(), bytes.begin() + kChecksumAt)) whole.push_back(parse_slot(i, bytes));
  }
  std::sort(whole.begin(), whole.end(), [](const KeySlot& a, const KeySlot& b) { return a.generation > b.generation; });
  if (whole.size() == 2 && whole[0].generation == whole[1].generation) malformed();
  if (whole.size() == 2) found.other = std::move(whole[1]);
  if (!whole.empty() && whole[0].generation > 0) found.active = std::move(whole[0]);
  return found;
}

void check_slot(const KeySlot& slot, const SecretBytes& data_key, const Sha384& core_digest) {
  const auto mac = std::span(slot.bytes).subspan(kMacAt, Format::kMacBytes);
  if (equal_in_constant_time(slot_mac(data_key, core_digest, slot.bytes), mac)) return;
  throw SealError(
      "[open_sealed] Expected the header that was sealed, received one that was altered or belongs to "
      "another file. Use an intact copy.");
}

SecretBytes open_slot(const KeySlot& slot, const Sha384& core_digest, const KeyProvider& keys) {
  SecretBytes data_key = keys.unwrap(slot.key);
  if (data_key.size() != Floe::kKeyBytes) malformed();
  check_slot(slot, data_key, core_digest);
  return data_key;
}

}  // namespace hushgrad
