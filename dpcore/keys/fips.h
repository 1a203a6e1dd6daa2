// FIPS mode: every algorithm comes from OpenSSL's FIPS provider, or the call fails.
#pragma once

#include <atomic>

using OSSL_LIB_CTX = struct ossl_lib_ctx_st;  // as OpenSSL declares it

namespace hushgrad {

/// Turns FIPS mode on for this process, for good. Loads OpenSSL's FIPS provider into a library context of hushgrad's
/// own, so that other users of OpenSSL in the process are not touched; from then on every fetch asks for "fips=yes".
/// The environment variable HUSHGRAD_FIPS=1 does the same at the first use of OpenSSL.
/// Unsupported when no FIPS provider is installed, or its self-tests fail: nothing falls back to another provider.
void require_fips();

/// Whether FIPS mode is on (by require_fips() or HUSHGRAD_FIPS=1). Unsupported as in require_fips().
bool fips_mode();

/// The library context and property query of every fetch: (null, null), or in FIPS mode hushgrad's own context and
/// "fips=yes".
struct OpensslSource {
  OSSL_LIB_CTX* context = nullptr;
  const char* properties = nullptr;
};
/// Unsupported when HUSHGRAD_FIPS=1 asks for a provider that is not there.
OpensslSource openssl_source();

/// An algorithm that is fetched once for each of the two modes and kept for the life of the process; make one `static`.
/// `Algorithm` is EVP_MD, EVP_CIPHER, EVP_KDF or EVP_MAC.
template <typename Algorithm>
class Fetched {
 public:
  using Fetch = Algorithm* (*)(OSSL_LIB_CTX*, const char* name, const char* properties);
  Fetched(Fetch fetch, const char* name) : fetch_(fetch), name_(name) {}

  /// Null when OpenSSL has no such algorithm.
  Algorithm* get() {
    const OpensslSource source = openssl_source();
    std::atomic<Algorithm*>& kept = source.context == nullptr ? plain_ : approved_;
    Algorithm* algorithm = kept.load(std::memory_order_acquire);
    if (algorithm != nullptr) return algorithm;
    algorithm = fetch_(source.context, name_, source.properties);
    kept.store(algorithm, std::memory_order_release);  // a second thread may fetch it too; OpenSSL hands out the same
    return algorithm;
  }

 private:
  Fetch fetch_;
  const char* name_;
  std::atomic<Algorithm*> plain_{nullptr}, approved_{nullptr};
};

}  // namespace hushgrad
