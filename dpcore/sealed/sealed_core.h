// What a sealed file says about itself in clear.
#pragma once

#include <cstdint>
#include <string>

namespace hushgrad {

/// Readable without a key (inspect_sealed), authenticated with one, and covered by the manifest that an identity signs.
/// The budget is never read from here; the ledger is authoritative. 1 MiB at most, all together.
/// Texts are UTF-8 of at most 256 bytes without control characters and without ".." between slashes.
struct SealedCore {
  std::string dataset;  // whose key seals the file; rules: check_dataset_name()
  std::string run_id{};
  std::int64_t step = 0;             // >= 0
  std::string plan_json = "{}";      // the privacy plan, one JSON document, kept byte for byte
  std::int64_t ledger_sequence = 0;  // >= 0; position of the ledger when this was written
  std::string ledger_hash{};
  /// What was spent, one JSON document; informative. Where it is an object, its "epsilon" is a number >= 0, a list of such
  /// or "infinity", and its "delta" lies in [0, 1].
  std::string epsilon_json = "{}";

  std::string tenant{};
  std::string ledger_id{};
  std::string policy_id{};
  std::string policy_digest{};
  std::string previous{};               // digest of the checkpoint before this one: 96 hex digits, or nothing

  // Filled in when the file is written, whatever stands here then.
  std::int64_t keyring_generation = 0;  // of the key provider
  std::string file_id{};        // 32 random hex digits
  std::int64_t created = 0;     // microseconds since 1970-01-01 UTC, by the writer's clock; informative
  std::string writer{};         // PublicKey::id() of the identity that signed; nothing: unsigned
  std::string software{};       // "hushgrad 0.1.0"
  std::int64_t index_bytes = 0;
  std::int64_t payload_bytes = 0;

  bool operator==(const SealedCore&) const = default;
};

/// Canonical JSON of exactly these fields. InvalidArgument when one breaks its rule.
std::string encode_core(const SealedCore& core);
/// Reads hostile text: SealError unless encode_core() could have written it.
SealedCore decode_core(const std::string& text);

/// Throws InvalidArgument, naming `what`, unless `text` is one JSON document.
void check_json(const char* what, const std::string& text);

}  // namespace hushgrad
