// A key that nobody keeps: for scratch files that must die with the run that wrote them.
#pragma once

#include <mutex>
#include <string>

#include "dpcore/keys/key_provider.h"

namespace hushgrad {

/// One random key in memory (SecretBytes), for every dataset. It is never written anywhere; after destruction or
/// destroy() nobody can open what it sealed. A forked child has a copy until it ends.
class EphemeralKeys final : public KeyProvider {
 public:
  EphemeralKeys();

  std::string name() const override { return "memory of this process"; }
  WrappedKey wrap(const std::string& dataset, std::span<const std::byte> data_key) const override;
  SecretBytes unwrap(const WrappedKey& wrapped) const override;
  KeyInfo key(const std::string& key_id) const override;
  std::vector<KeyInfo> list() const override;
  std::uint64_t generation() const override { return 0; }

  void destroy();

 private:
  void check(const std::string& key_id) const;

  mutable std::mutex mutex_;
  std::string id_;
  SecretBytes key_;
};

/// The dataset in the core of scratch files.
inline constexpr char kScratchDataset[] = "hushgrad scratch";

}  // namespace hushgrad
