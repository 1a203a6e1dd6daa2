// What this user has seen of keyrings, kept away from them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "dpcore/keys/secret_bytes.h"

namespace hushgrad {

/// $HUSHGRAD_STATE_DIR, else $XDG_STATE_HOME/hushgrad, else ~/.local/state/hushgrad, and in it the folder `name`, made
/// where needed. Empty where none of these can be written.
std::string state_folder(const std::string& name);

/// The newest a keyring was seen at.
struct SeenKeyring {
  std::uint64_t generation = 0;
  std::int64_t time = 0;  // seconds since 1970: the largest time seen when it was used
  std::uint64_t log_sequence = 0;
  std::string log_hash;

  bool operator==(const SeenKeyring&) const = default;
};

/// One small file a keyring, `keyrings/<id>` in the state folder. A help, not a promise: where nothing can be written
/// nothing is remembered, and it is not synced. What is remembered never gets older, whoever writes at once. Never throws.
std::optional<SeenKeyring> seen_keyring(const std::string& keyring_id);
void remember_keyring(const std::string& keyring_id, const SeenKeyring& seen);

/// 32 random bytes of this user on this machine (`machine.secret`, mode 0600, made at the first call) mixed with the
/// machine's id: a keyring bound to them opens here only. KeyError when `make` is false and there is none, IoError.
SecretBytes machine_secret(bool make);

}  // namespace hushgrad
