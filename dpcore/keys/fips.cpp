#include "dpcore/keys/fips.h"

#include <cstdlib>
#include <mutex>
#include <string_view>

#include <openssl/conf.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/provider.h>

#include "dpcore/error.h"

namespace hushgrad {
namespace {

constexpr const char* kApproved = "fips=yes";

std::mutex mutex;
std::atomic<OSSL_LIB_CTX*> approved_context{nullptr};  // lives as long as the process: fetched algorithms point into it

[[noreturn]] void no_provider(OSSL_LIB_CTX* context) {
  OSSL_LIB_CTX_free(context);
  ERR_clear_error();
  throw Unsupported(
      "[fips] Expected OpenSSL's FIPS provider, installed and configured (openssl fipsinstall), received none that "
      "loads and passes its self-tests. Install a validated provider, or run without HUSHGRAD_FIPS and "
      "require_fips(); nothing else is used in its place.");
}

// The module's checksum stands in the configuration file of OpenSSL, where there is one.
void read_configuration(OSSL_LIB_CTX* context) {
  char* file = CONF_get1_default_config_file();
  if (file != nullptr) OSSL_LIB_CTX_load_config(context, file);
  OPENSSL_free(file);
  ERR_clear_error();
}

OSSL_LIB_CTX* load() {
  OSSL_LIB_CTX* context = OSSL_LIB_CTX_new();
  if (context == nullptr) no_provider(context);
  read_configuration(context);
  OSSL_PROVIDER* fips = OSSL_PROVIDER_load(context, "fips");
  // The base provider reads and writes keys in files; it holds no cryptography.
  if (fips == nullptr || OSSL_PROVIDER_self_test(fips) != 1 || OSSL_PROVIDER_load(context, "base") == nullptr) {
    no_provider(context);
  }
  return context;
}

bool asked_by_environment() {
  static const bool asked = [] {
    const char* value = std::getenv("HUSHGRAD_FIPS");
    if (value == nullptr || std::string_view(value).empty() || std::string_view(value) == "0") return false;
    return true;  // anything else asks for it: a typing error must not turn the mode off
  }();
  return asked;
}

}  // namespace

void require_fips() {
  const std::lock_guard lock(mutex);
  if (approved_context.load() == nullptr) approved_context.store(load());
}

bool fips_mode() { return openssl_source().context != nullptr; }

OpensslSource openssl_source() {
  OSSL_LIB_CTX* context = approved_context.load(std::memory_order_acquire);
  if (context != nullptr) return {context, kApproved};
  if (!asked_by_environment()) return {};
  require_fips();
  return {approved_context.load(), kApproved};
}

}  // namespace hushgrad
