// The keyring under the contract of all providers: without a passphrase, and with one on a bound machine.
#include "dpcore/keys/key_provider_contract.h"
#include "dpcore/keys/keyring.h"

namespace hushgrad::seal_testing {
namespace {

template <bool kProtected>
struct KeyringMaker {
  TemporaryFolder folder;
  const Bytes passphrase = bytes_of("correct horse battery staple");

  static std::string unavailable() { return ""; }
  KeyringMaker() {
    Keyring keyring = Keyring::create(folder / "k", access(), kProtected);
    keyring.create_key("a");
    keyring.create_key("b", {.tenant = "other"});
  }
  KeyringAccess access() const {
    if (!kProtected) return {};
    return {.passphrase = passphrase, .identity = nullptr};
  }
  Keyring keyring() { return Keyring::open(folder / "k", access()); }
  std::unique_ptr<KeyProvider> open() { return std::make_unique<Keyring>(keyring()); }
  void suspend(const std::string& dataset) { keyring().suspend({.dataset = dataset}, "audit"); }
  void destroy(const std::string& dataset) { keyring().shred({.dataset = dataset}, "retention", {}); }
};

INSTANTIATE_TYPED_TEST_SUITE_P(Keyring, KeyProviderContract, KeyringMaker<false>);
INSTANTIATE_TYPED_TEST_SUITE_P(ProtectedKeyring, KeyProviderContract, KeyringMaker<true>);

}  // namespace
}  // namespace hushgrad::seal_testing
