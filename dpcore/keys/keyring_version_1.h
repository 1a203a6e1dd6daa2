// Keyrings of format version 1, which are still read: one line a key, its secret in clear.
#pragma once

#include <string_view>
#include <utility>

#include "dpcore/keys/keyring_model.h"
#include "dpcore/keys/root_key.h"

namespace hushgrad {

bool is_version_1(std::string_view text);

/// The same keys under a fresh root and the tenant "default". KeyError when malformed.
std::pair<KeyringModel, RootKey> parse_version_1(std::string_view text);

}  // namespace hushgrad
