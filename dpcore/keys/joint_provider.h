// Keys that a keyring and another place hold together: neither opens anything without the other.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "dpcore/keys/key_provider.h"
#include "dpcore/keys/keyring.h"

namespace hushgrad {

/// Gives a token or a key service what only keyrings have: quorums, dates, usage limits, break-glass and the signed log.
///
/// Each data key is encrypted under a key derived from two random shares of 32 bytes; one is wrapped by the keyring, the
/// other by `place`, under the keys that both hold for the dataset. What one of them refuses is refused, at each use: a key
/// that is suspended, revoked, expired or destroyed in either place opens nothing, and destroying either shreds.
///
/// Key ids, states, tenants, dates and the generation are those of the keyring; a key that is active there while `place`
/// has none for its dataset is shown as suspended.
///
///   front = 0x01, length of w in two bytes, key id of `place`, its generation in eight bytes, w = share A wrapped by `place`
///   m     = HMAC-SHA-384(B, front || id in the keyring)
///   k     = HKDF-Expand-SHA-384(HMAC-SHA-384(A, B), "hushgrad joint 1" || m, 32)
///   bytes = front, share B wrapped by the keyring (40 bytes), m (48 bytes), AES-256-KWP(k, data key) (40 bytes)
///
/// What it does not promise: whoever can use both places without this class, with the keyring's file and passphrase and the
/// token's PIN, is bound by what `place` enforces itself only.
class JointProvider final : public KeyProvider {
 public:
  /// Both must outlive this.
  JointProvider(const Keyring& keyring, const KeyProvider& place) : keyring_(keyring), place_(place) {}

  std::string name() const override { return keyring_.name() + " together with " + place_.name(); }
  WrappedKey wrap(const std::string& dataset, std::span<const std::byte> data_key) const override;
  SecretBytes unwrap(const WrappedKey& wrapped) const override;
  KeyInfo key(const std::string& key_id) const override;
  std::vector<KeyInfo> list() const override;
  std::uint64_t generation() const override { return keyring_.generation(); }

 private:
  const Keyring& keyring_;
  const KeyProvider& place_;
};

}  // namespace hushgrad
