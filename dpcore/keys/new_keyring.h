// New keys in a keyring's model: random, and at once under the key above them.
#pragma once

#include <cstdint>
#include <string>

#include "dpcore/keys/keyring_model.h"
#include "dpcore/keys/root_key.h"

namespace hushgrad {

inline constexpr const char* kDefaultTenant = "default";

/// No keys yet but the one that signs the log; generation 1.
KeyringModel new_keyring_model(const RootKey& root, const KeyringProtection& protection);

/// Adds a key of `tenant` and returns it in clear.
SecretBytes add_tenant_key(KeyringModel& model, const RootKey& root, const std::string& tenant, std::int64_t now,
                           const std::string& actor);

/// The key of `tenant` in clear. KeyError when there is none.
SecretBytes open_tenant_key(const KeyringModel& model, const RootKey& root, const std::string& tenant);

/// The key of a dataset in clear. KeyError when it was destroyed or is not intact.
SecretBytes open_key(const KeyringModel& model, const RootKey& root, const KeyRecord& key);

/// 32 random hexadecimal digits.
std::string random_id();

/// The key that signs this keyring's log and certificates.
SigningKey open_log_key(const KeyringModel& model, const RootKey& root);

}  // namespace hushgrad
