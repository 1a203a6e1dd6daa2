#include "accounting/build_facts.h"

#include <omp.h>
#include <openssl/crypto.h>
#include <openssl/opensslv.h>
#include <sqlite3.h>

#ifdef HUSHGRAD_HAVE_LIBPQ
#include <libpq-fe.h>
#endif

namespace hushgrad {
namespace {

std::string libpq() {
#ifdef HUSHGRAD_HAVE_LIBPQ
  return std::to_string(PQlibVersion() / 10000) + "." + std::to_string(PQlibVersion() % 10000);
#else
  return "not built in";
#endif
}

std::string compiler() {
#ifdef __clang__
  return std::string("clang ") + __clang_version__;
#else
  return std::string("gcc ") + __VERSION__;
#endif
}

std::string build() {
#ifdef NDEBUG
  return "release";
#else
  return "debug";
#endif
}

std::string sanitizers() {
#ifdef __SANITIZE_ADDRESS__
  return "address";
#else
  return "none";
#endif
}

}  // namespace

std::vector<std::pair<std::string, std::string>> build_facts() {
  return {{"version", HUSHGRAD_VERSION},
          {"compiler", compiler()},
          {"standard", "C++" + std::to_string(__cplusplus / 100 % 100)},
          {"build", build()},
          {"sanitizers", sanitizers()},
          {"openmp", std::to_string(_OPENMP)},
          {"openssl", OpenSSL_version(OPENSSL_VERSION_STRING)},
          {"openssl_built", OPENSSL_VERSION_STR},
          {"sqlite", sqlite3_libversion()},
          {"sqlite_built", SQLITE_VERSION},
          {"libpq", libpq()}};
}

}  // namespace hushgrad
