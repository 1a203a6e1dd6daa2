#include "dpcore/keys/fips.h"

#include <array>

#include <openssl/conf.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/provider.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dpcore/error.h"
#include "dpcore/keys/argon2id.h"
#include "dpcore/keys/kdf.h"
#include "dpcore/keys/seal_testing.h"
#include "dpcore/keys/signing.h"

namespace hushgrad {
namespace {

using namespace seal_testing;

bool provider_is_installed() {
  OSSL_LIB_CTX* context = OSSL_LIB_CTX_new();
  // The provider's checksum and self-test status stand in the configuration: without it none loads.
  if (char* file = CONF_get1_default_config_file()) {
    OSSL_LIB_CTX_load_config(context, file);
    OPENSSL_free(file);
  }
  OSSL_PROVIDER* fips = OSSL_PROVIDER_load(context, "fips");
  const bool installed = fips != nullptr;
  if (fips != nullptr) OSSL_PROVIDER_unload(fips);
  OSSL_LIB_CTX_free(context);
  ERR_clear_error();
  return installed;
}

// In a child, for the mode is for good. Its exit status says what happened.
template <typename Call>
int in_child(const Call& call) {
  const pid_t child = ::fork();
  if (child == 0) {
    try {
      ::_exit(call());
    } catch (const Unsupported& error) {
      ::_exit(std::string_view(error.what()).find("FIPS") != std::string_view::npos ? 77 : 1);
    } catch (...) {
      ::_exit(2);
    }
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(Fips, WithoutAProviderNothingIsUsedInItsPlace) {
  if (provider_is_installed()) GTEST_SKIP() << "SKIPPED: this machine has a FIPS provider";
  EXPECT_EQ(in_child([] { require_fips(); return 0; }), 77);
  EXPECT_FALSE(fips_mode());
}

TEST(Fips, WithAProviderApprovedAlgorithmsOnly) {
  if (!provider_is_installed()) GTEST_SKIP() << "SKIPPED: this machine has no FIPS provider";
  EXPECT_EQ(in_child([] {
              require_fips();
              const SigningKey key = SigningKey::generate();
              if (!key.public_key().verify("x", {}, key.sign("x", {}))) return 3;
              static Fetched<EVP_MD> unapproved(EVP_MD_fetch, "MD5");
              if (unapproved.get() != nullptr) return 4;
              try {
                std::array<std::byte, 32> out;
                argon2id(bytes_of("passphrase"), Bytes(16), kArgon2Cost, out);
                return 6;
              } catch (const Unsupported&) {
              }
              try {
                SigningKey::generate(SignatureAlgorithm::ed25519);
                return 5;
              } catch (const InvalidArgument&) {
                return 0;
              }
            }), 0);
}

}  // namespace
}  // namespace hushgrad
