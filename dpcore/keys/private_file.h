// Reading files that hold secrets: keyrings, signing keys, passphrases, PINs.
#pragma once

#include <cstddef>
#include <string>

#include "dpcore/keys/durable_file.h"
#include "dpcore/keys/secret_bytes.h"

namespace hushgrad {

/// Opens `path` for reading without following a link at its end, and refuses what somebody else could have read or
/// written: anything but a regular file of the current user without permissions for group or others, at most
/// `max_bytes` long. `what` names the kind of file in messages ("keyring").
/// Errors: KeyError (missing or refused), InvalidArgument (NUL in the path), IoError.
Descriptor open_private_file(const std::string& path, const char* what, std::size_t max_bytes);

/// The same demands on a file that is open already.
void check_private_file(int descriptor, const std::string& path, const char* what, std::size_t max_bytes);

/// The bytes of an open file, all of them. KeyError when it changes its length meanwhile, IoError.
SecretBytes read_secret(int descriptor, const std::string& path);

/// open_private_file() and read_secret().
SecretBytes read_private_file(const std::string& path, const char* what, std::size_t max_bytes);

/// The first line of a private file of at most 4096 bytes, without its end: a passphrase or a PIN. KeyError when empty.
SecretBytes read_secret_line(const std::string& path, const char* what);

/// The same from an open descriptor (a pipe, for one), read to its end; the descriptor stays open.
SecretBytes read_secret_line(int descriptor, const char* what);

}  // namespace hushgrad
