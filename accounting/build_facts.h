#pragma once

#include <string>
#include <utility>
#include <vector>

namespace hushgrad {

/// What the libraries were built with and what they run with: name and value, in the order to show them.
///
/// Keys: version, compiler, standard, build ("release" or "debug"), sanitizers ("none" or "address"), openmp, openssl and
/// sqlite (the versions that are loaded), openssl_built and sqlite_built (the headers' versions), libpq ("not built in"
/// without PostgreSQL). Holds no path and nothing of the machine.
std::vector<std::pair<std::string, std::string>> build_facts();

}  // namespace hushgrad
