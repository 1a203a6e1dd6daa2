// Certificates of destruction: signed statements that keys are gone.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "dpcore/keys/signing.h"

namespace hushgrad {

struct DestroyedKey {
  std::string id, tenant, dataset;  // a tenant's own key has no dataset
  std::string created, state;       // UTC; the state before
};

struct DestructionRecord {
  std::string keyring;           // id
  std::uint64_t generation = 0;  // the first without the keys: copies of older generations still hold them
  std::string time, actor, approvers, reason;
  std::vector<DestroyedKey> keys;
  std::vector<std::string> files;  // as the caller gave them
  std::uint64_t log_sequence = 0;  // the entry of the key log that says so
  std::string log_hash;
};

/// The certificate as JSON with its public key and signature (context "certificate of destruction").
std::string sign_certificate(const DestructionRecord& record, const SigningKey& signer);

/// Whether `text` is a certificate, unaltered, signed by `signer`. False for anything else.
bool verify_certificate(const std::string& text, const PublicKey& signer);

}  // namespace hushgrad
