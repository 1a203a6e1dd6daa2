// Keys in a hardware module: any PKCS#11 token with AES key wrap, a cloud HSM or SoftHSM included.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "dpcore/keys/key_provider.h"
#include "dpcore/keys/secret_bytes.h"

namespace hushgrad {

/// One AES-256 key a dataset on a token: made there, not extractable, for wrapping only (both checked at each use). File
/// keys are wrapped by AES-256-KWP on the token (CKM_AES_KEY_WRAP_KWP or CKM_AES_KEY_WRAP_PAD), in 40 bytes.
///
/// The module runs in a helper process. A call that takes longer than the timeout, or a module that crashes, is a KeyError;
/// training goes on or stops as its program decides, and never hangs. No other provider is asked instead. A PIN that was
/// refused is not tried again.
///
/// The state of a key is kept on the token, in its label and in CKA_WRAP and CKA_UNWRAP: the token itself refuses what a
/// state forbids, and every process sees a change at its next call. The generation is 0: the token keeps none.
/// Errors as in KeyProvider; InvalidArgument for names.
class Pkcs11 final : public KeyProvider {
 public:
  /// `module`: path of the vendor's library. `token`: the label of the token. `pin`: of its user; see read_secret_line().
  /// `seconds`: how long one call may take, 1..600.
  Pkcs11(const std::string& module, const std::string& token, SecretBytes pin, int seconds = 10);
  ~Pkcs11() override;

  std::string name() const override;
  WrappedKey wrap(const std::string& dataset, std::span<const std::byte> data_key) const override;
  SecretBytes unwrap(const WrappedKey& wrapped) const override;
  KeyInfo key(const std::string& key_id) const override;
  std::vector<KeyInfo> list() const override;
  std::uint64_t generation() const override { return 0; }

  /// Adds a key for `dataset`; does nothing when it has an active one.
  void create_key(const std::string& dataset, const std::string& tenant = "default");
  /// Adds a new key and deactivates those that were active. KeyError when there is none.
  void rotate_key(const std::string& dataset);
  /// Every key of `dataset` neither seals nor opens.
  void suspend(const std::string& dataset);
  /// Suspended keys of `dataset` are active again; the newest seals, the others only open.
  void resume(const std::string& dataset);
  /// Every key of `dataset` is compromised, for good.
  void revoke(const std::string& dataset);
  /// Destroys every key of `dataset` on the token (C_DestroyObject).
  void destroy(const std::string& dataset);

 private:
  struct State;
  KeyInfo active(const std::string& dataset) const;
  void make_key(const std::string& dataset, const std::string& tenant);
  void set_state(const KeyInfo& key, const std::string& state);

  std::unique_ptr<State> state_;
};

}  // namespace hushgrad
