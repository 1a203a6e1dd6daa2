#include "dpcore/keys/joint_provider.h"

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include <openssl/crypto.h>

#include "dpcore/error.h"
#include "dpcore/keys/bytes.h"
#include "dpcore/keys/kdf.h"
#include "dpcore/keys/key_wrap.h"

namespace hushgrad {
namespace {

constexpr std::size_t kKeyBytes = 32, kIdBytes = 16, kWrappedBytes = 40;
constexpr std::size_t kHead = 1 + 2 + kIdBytes + 8;
constexpr std::size_t kTail = kWrappedBytes + sizeof(Sha384) + kWrappedBytes;
constexpr std::byte kVersion{1};

// What `place` wrapped, with its length, id and generation: everything before share B.
std::vector<std::byte> front_of(const WrappedKey& share) {
  if (!is_hex(share.key_id, kIdBytes) || share.bytes.size() > WrappedKey::kMaxBytes - kHead - kTail) {
    throw KeyError("[joint] Expected at most 869 wrapped bytes and a key id of 32 hexadecimal digits, received others.");
  }
  std::vector<std::byte> front{kVersion};
  append_big_endian(front, share.bytes.size(), 2);
  std::vector<std::byte> id(kIdBytes);
  from_hex(share.key_id, id);
  append(front, id);
  append_big_endian(front, share.generation, 8);
  append(front, share.bytes);
  return front;
}

// The reverse; nothing for other bytes.
std::optional<WrappedKey> share_in(std::span<const std::byte> bytes) {
  if (bytes.size() < kHead + kTail || bytes[0] != kVersion) return std::nullopt;
  const std::size_t size = read_big_endian(bytes.subspan(1, 2));
  if (bytes.size() != kHead + size + kTail) return std::nullopt;
  const auto wrapped = bytes.subspan(kHead, size);
  return WrappedKey{to_hex(bytes.subspan(3, kIdBytes)), {wrapped.begin(), wrapped.end()},
                    read_big_endian(bytes.subspan(3 + kIdBytes, 8))};
}

Sha384 mark_of(const SecretBytes& b, std::span<const std::byte> front, const std::string& key_id) {
  std::vector<std::byte> covered(front.begin(), front.end());
  append(covered, text_bytes(key_id));
  return hmac_sha384(b.bytes(), covered);
}

SecretBytes joint_key(const SecretBytes& a, const SecretBytes& b, const Sha384& mark) {
  Sha384 both = hmac_sha384(a.bytes(), b.bytes());
  std::vector<std::byte> info;
  append(info, text_bytes("hushgrad joint 1"));
  append(info, mark);
  SecretBytes key(kKeyBytes);
  hkdf_expand_sha384(both, info, key.bytes());
  OPENSSL_cleanse(both.data(), both.size());
  return key;
}

[[noreturn]] void altered() {
  throw SealError(
      "[joint] Expected a data key wrapped by a keyring and another place together, under the named keys, received one that "
      "was altered or wrapped otherwise. Use an intact copy of the file, and the provider that sealed it.");
}

}  // namespace

WrappedKey JointProvider::wrap(const std::string& dataset, std::span<const std::byte> data_key) const {
  if (data_key.size() != kKeyBytes) {
    throw InvalidArgument(message("[joint] Expected a data key of 32 bytes, received ", data_key.size(), "."));
  }
  const SecretBytes a = SecretBytes::random(kKeyBytes), b = SecretBytes::random(kKeyBytes);
  const WrappedKey by_keyring = keyring_.wrap(dataset, b.bytes());
  std::vector<std::byte> bytes = front_of(place_.wrap(dataset, a.bytes()));
  const Sha384 mark = mark_of(b, bytes, by_keyring.key_id);
  append(bytes, by_keyring.bytes);
  append(bytes, mark);
  append(bytes, aes256_kwp_wrap(joint_key(a, b, mark).bytes(), data_key));
  return {by_keyring.key_id, std::move(bytes), by_keyring.generation};
}

SecretBytes JointProvider::unwrap(const WrappedKey& wrapped) const {
  const KeyInfo named = keyring_.key(wrapped.key_id);
  const std::span<const std::byte> bytes = wrapped.bytes;
  const auto share = share_in(bytes);
  if (!share) altered();
  const auto front = bytes.first(bytes.size() - kTail), by_keyring = bytes.last(kTail).first(kWrappedBytes);
  // The keyring first: its log says that a key was used under broken glass before anything opens, and what it wrapped vouches
  // for what `place` is asked.
  const SecretBytes b = keyring_.unwrap({wrapped.key_id, {by_keyring.begin(), by_keyring.end()}, wrapped.generation});
  const Sha384 mark = mark_of(b, front, wrapped.key_id);
  if (!equal_in_constant_time(mark, bytes.last(kTail).subspan(kWrappedBytes, sizeof(Sha384)))) altered();
  if (place_.key(share->key_id).dataset != named.dataset) altered();
  const SecretBytes a = place_.unwrap(*share);
  auto data_key = aes256_kwp_unwrap(joint_key(a, b, mark).bytes(), bytes.last(kWrappedBytes));
  if (!data_key || data_key->size() != kKeyBytes) altered();
  return std::move(*data_key);
}

KeyInfo JointProvider::key(const std::string& key_id) const {
  KeyInfo found = keyring_.key(key_id);
  if (found.state == "active" && !place_.has_key(found.dataset)) found.state = "suspended";
  return found;
}

std::vector<KeyInfo> JointProvider::list() const {
  std::set<std::string> usable;
  for (const KeyInfo& key : place_.list()) {
    if (key.state == "active") usable.insert(key.dataset);
  }
  std::vector<KeyInfo> keys = keyring_.list();
  for (KeyInfo& key : keys) {
    if (key.state == "active" && !usable.contains(key.dataset)) key.state = "suspended";
  }
  return keys;
}

}  // namespace hushgrad
