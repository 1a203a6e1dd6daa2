#include "dpcore/keys/certificate.h"

#include <nlohmann/json.hpp>

#include "dpcore/keys/bytes.h"

namespace hushgrad {
namespace {

using nlohmann::json;

constexpr const char* kFormat = "hushgrad certificate of destruction 1";
constexpr const char* kContext = "certificate of destruction";
constexpr const char* kStatement =
    "The keys listed were destroyed in the keyring named: from the stated generation on it holds no copy of them. Copies "
    "of the keyring of earlier generations, where any were made, still hold them; destroy these too.";

json key_json(const DestroyedKey& key) {
  return {{"id", key.id}, {"tenant", key.tenant}, {"dataset", key.dataset}, {"created", key.created}, {"state", key.state}};
}

}  // namespace

std::string sign_certificate(const DestructionRecord& record, const SigningKey& signer) {
  json keys = json::array();
  for (const DestroyedKey& key : record.keys) keys.push_back(key_json(key));
  json text{{"format", kFormat},
            {"statement", kStatement},
            {"keyring", record.keyring},
            {"generation", record.generation},
            {"time", record.time},
            {"actor", record.actor},
            {"approvers", record.approvers},
            {"reason", record.reason},
            {"keys", keys},
            {"files", record.files},
            {"log", {{"sequence", record.log_sequence}, {"hash", record.log_hash}}},
            {"public_key", signer.public_key().pem()}};
  text["signature"] = to_hex(signer.sign(kContext, text_bytes(text.dump())));
  return text.dump();
}

bool verify_certificate(const std::string& text, const PublicKey& signer) {
  json object = json::parse(text, nullptr, false);
  if (!object.is_object() || object.value("format", json()) != kFormat || !object.contains("signature") ||
      !object["signature"].is_string()) {
    return false;
  }
  const std::string digits = object["signature"];
  if (!is_hex(digits, digits.size() / 2)) return false;
  std::vector<std::byte> signature(digits.size() / 2);
  from_hex(digits, signature);
  object.erase("signature");
  return signer.verify(kContext, text_bytes(object.dump()), signature);
}

}  // namespace hushgrad
