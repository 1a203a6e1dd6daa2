#include "dpcore/sealed/ephemeral_keys.h"

#include <array>
#include <optional>
#include <utility>

#include "dpcore/error.h"
#include "dpcore/keys/bytes.h"
#include "dpcore/keys/key_wrap.h"

namespace hushgrad {
namespace {

constexpr std::size_t kKeyBytes = 32;

std::string random_id() {
  std::array<std::byte, 16> id;
  fill_random(id);
  return to_hex(id);
}

}  // namespace

EphemeralKeys::EphemeralKeys() : id_(random_id()), key_(SecretBytes::random(kKeyBytes)) {}

void EphemeralKeys::check(const std::string& key_id) const {
  if (key_.size() == kKeyBytes && key_id == id_) return;
  throw KeyError(
      "[scratch] Expected a file of this scratch directory while it is open, received another, or one after its key was "
      "destroyed. Nobody can open it any more.");
}

WrappedKey EphemeralKeys::wrap(const std::string&, std::span<const std::byte> data_key) const {
  const std::lock_guard lock(mutex_);
  check(id_);
  return {id_, aes256_kwp_wrap(key_.bytes(), data_key), 0};
}

SecretBytes EphemeralKeys::unwrap(const WrappedKey& wrapped) const {
  const std::lock_guard lock(mutex_);
  check(wrapped.key_id);
  std::optional<SecretBytes> data_key = aes256_kwp_unwrap(key_.bytes(), wrapped.bytes);
  if (data_key) return std::move(*data_key);
  throw SealError("[scratch] Expected a data key of this scratch directory, received an altered one.");
}

KeyInfo EphemeralKeys::key(const std::string& key_id) const {
  const std::lock_guard lock(mutex_);
  check(key_id);
  KeyInfo info;
  info.id = id_;
  info.dataset = kScratchDataset;
  info.state = "active";
  return info;
}

std::vector<KeyInfo> EphemeralKeys::list() const {
  return {key(id_)};
}

void EphemeralKeys::destroy() {
  const std::lock_guard lock(mutex_);
  key_ = SecretBytes(0);
}

}  // namespace hushgrad
