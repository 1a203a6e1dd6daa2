// Where the keys of datasets are: a keyring file, a hardware module, a key service. Whoever seals files sees only this.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "dpcore/keys/secret_bytes.h"

namespace hushgrad {

/// What may be shown of a key. No key material.
struct KeyInfo {
  std::string id;       // 32 lower-case hex digits; names the key, says nothing about it
  std::string dataset;  // see check_dataset_name()
  std::string created;  // UTC, "2026-01-31T12:00:00Z"; informative
  std::string state;    // of NIST SP 800-57: pre-active, active, suspended, deactivated, compromised, destroyed
  std::string tenant = "default";  // see check_tenant_name()
  std::string expires;  // UTC; from then on the key wraps nothing new, but still unwraps; empty: no end
};

/// A data key as it may be stored: encrypted under the dataset key `key_id`.
struct WrappedKey {
  std::string key_id;
  std::vector<std::byte> bytes;  // 1..kMaxBytes; the keyring and PKCS#11 give AES-256-KWP of a 32-byte key, 40 bytes
  std::uint64_t generation = 0;  // of the provider when it wrapped: an older copy of it must not unwrap this
  static constexpr std::size_t kMaxBytes = 1024;
};

/// Every provider keeps this contract; tests/dpcore/keys/key_provider_contract.h holds it against each.
///  - wrap() uses the one active key of the dataset, unwrap() the key that is named; no other key is tried, and no
///    other provider is asked.
///  - States are followed: only an active key wraps, only an active or deactivated key unwraps. A key that is
///    suspended, compromised or destroyed unwraps nothing, in processes that run already too: within the time that
///    the provider states.
///  - What comes back from unwrap() is what went into wrap(), or an error: SealError when the bytes are not intact
///    under the named key, KeyError when there is no such key, it may not be used, the provider is older than
///    `wrapped.generation`, or cannot be reached; InvalidArgument for a data key that is not 32 bytes. Nothing falls back.
///  - No message and no KeyInfo holds key material. Safe for concurrent use.
class KeyProvider {
 public:
  virtual ~KeyProvider() = default;

  /// Shown to people: kind and place, no secret. "keyring /srv/keys/hospital".
  virtual std::string name() const = 0;
  virtual WrappedKey wrap(const std::string& dataset, std::span<const std::byte> data_key) const = 0;
  virtual SecretBytes unwrap(const WrappedKey& wrapped) const = 0;
  /// KeyError when unknown. Known keys include those that may not be used.
  virtual KeyInfo key(const std::string& key_id) const = 0;
  /// All keys of datasets, in order of creation.
  virtual std::vector<KeyInfo> list() const = 0;
  /// Goes up with every change of keys or states; 0 where the provider keeps none.
  virtual std::uint64_t generation() const = 0;

  /// Whether `dataset` has an active key.
  bool has_key(const std::string& dataset) const {
    for (const KeyInfo& info : list()) {
      if (info.dataset == dataset && info.state == "active") return true;
    }
    return false;
  }
  std::string dataset_of(const std::string& key_id) const { return key(key_id).dataset; }

 protected:
  KeyProvider() = default;
  KeyProvider(const KeyProvider&) = default;
  KeyProvider& operator=(const KeyProvider&) = default;
};

}  // namespace hushgrad
