#include "dpcore/sealed/sealed_core.h"

#include <algorithm>
#include <cmath>
#include <string_view>

#include <nlohmann/json.hpp>

#include "dpcore/error.h"
#include "dpcore/keys/bytes.h"
#include "dpcore/keys/names.h"

namespace hushgrad {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxTextBytes = 256;
constexpr std::size_t kFields = 19;

[[noreturn]] void malformed_core() {
  throw SealError(
      "[open_sealed] Expected a core of known fields in canonical JSON, received another. The file was not written by "
      "this version of hushgrad; do not use it.");
}

bool is_text(std::string_view text) {
  const bool plain = text.size() <= kMaxTextBytes && std::none_of(text.begin(), text.end(), [](unsigned char c) {
    return c < 0x20 || c == 0x7F;
  });
  if (!plain) return false;
  const std::string between = "/" + std::string(text) + "/";
  return between.find("/../") == between.npos;
}

// Nested as an accountant writes it, not as deep as a hostile file can.
constexpr int kDeepestEpsilon = 4;

bool is_epsilon(const json& value, int depth = 0) {
  if (value.is_array()) {
    return depth < kDeepestEpsilon &&
           std::all_of(value.begin(), value.end(), [&](const json& item) { return is_epsilon(item, depth + 1); });
  }
  if (value.is_string()) return value == "infinity";
  return value.is_number() && value.get<double>() >= 0 && std::isfinite(value.get<double>());
}

bool is_spent(const std::string& document) {
  const json spent = json::parse(document, nullptr, false);
  if (spent.is_discarded()) return false;
  if (!spent.is_object()) return true;
  if (spent.contains("epsilon") && !is_epsilon(spent["epsilon"])) return false;
  if (!spent.contains("delta")) return true;
  return spent["delta"].is_number() && spent["delta"].get<double>() >= 0 && spent["delta"].get<double>() <= 1;
}

// What both directions demand.
bool holds(const SealedCore& core) {
  for (const std::string* text : {&core.dataset, &core.run_id, &core.ledger_hash, &core.tenant, &core.ledger_id,
                                  &core.policy_id, &core.policy_digest, &core.software}) {
    if (!is_text(*text)) return false;
  }
  for (const std::int64_t number : {core.step, core.ledger_sequence, core.keyring_generation, core.created,
                                    core.index_bytes, core.payload_bytes}) {
    if (number < 0) return false;
  }
  return is_hex(core.file_id, 16) && (core.previous.empty() || is_hex(core.previous, 48)) &&
         (core.writer.empty() || is_hex(core.writer, 16)) && json::accept(core.plan_json) && is_spent(core.epsilon_json);
}

std::int64_t count(const json& value) {
  if (!value.is_number_unsigned() || value.get<std::uint64_t>() > INT64_MAX) malformed_core();
  return value.get<std::int64_t>();
}

SealedCore fields_of(const json& parsed) {
  SealedCore core;
  core.dataset = parsed.at("dataset");
  core.run_id = parsed.at("run_id");
  core.step = count(parsed.at("step"));
  core.plan_json = parsed.at("plan");
  core.ledger_sequence = count(parsed.at("ledger_sequence"));
  core.ledger_hash = parsed.at("ledger_hash");
  core.epsilon_json = parsed.at("epsilon");
  core.tenant = parsed.at("tenant");
  core.ledger_id = parsed.at("ledger_id");
  core.policy_id = parsed.at("policy");
  core.policy_digest = parsed.at("policy_digest");
  core.keyring_generation = count(parsed.at("keyring_generation"));
  core.previous = parsed.at("previous");
  core.file_id = parsed.at("file_id");
  core.created = count(parsed.at("created"));
  core.writer = parsed.at("writer");
  core.software = parsed.at("software");
  core.index_bytes = count(parsed.at("index_bytes"));
  core.payload_bytes = count(parsed.at("payload_bytes"));
  return core;
}

}  // namespace

void check_json(const char* what, const std::string& text) {
  if (json::accept(text)) return;
  throw InvalidArgument(
      message("[write_sealed] Expected ", what, " to be a JSON document, received something else."));
}

std::string encode_core(const SealedCore& core) {
  check_dataset_name(core.dataset);
  check_json("plan_json", core.plan_json);
  check_json("epsilon_json", core.epsilon_json);
  if (!holds(core)) {
    throw InvalidArgument(
        "[write_sealed] Expected counts >= 0, epsilon >= 0, delta in [0, 1] and texts of at most 256 bytes without "
        "control characters and \"..\" in the core, received others.");
  }
  try {
    return json{{"dataset", core.dataset},
                {"run_id", core.run_id},
                {"step", core.step},
                {"plan", core.plan_json},
                {"ledger_hash", core.ledger_hash},
                {"ledger_sequence", core.ledger_sequence},
                {"epsilon", core.epsilon_json},
                {"tenant", core.tenant},
                {"ledger_id", core.ledger_id},
                {"policy", core.policy_id},
                {"policy_digest", core.policy_digest},
                {"keyring_generation", core.keyring_generation},
                {"previous", core.previous},
                {"file_id", core.file_id},
                {"created", core.created},
                {"writer", core.writer},
                {"software", core.software},
                {"index_bytes", core.index_bytes},
                {"payload_bytes", core.payload_bytes}}
        .dump();
  } catch (const json::exception&) {
    throw InvalidArgument("[write_sealed] Expected UTF-8 in the core, received other bytes.");
  }
}

SealedCore decode_core(const std::string& text) {
  try {
    // Flat fields: anything nested is refused before it can grow deep.
    const json parsed = json::parse(text, [](int depth, json::parse_event_t, json&) {
      if (depth > 1) malformed_core();
      return true;
    });
    if (!parsed.is_object() || parsed.size() != kFields || parsed.dump() != text) malformed_core();
    SealedCore core = fields_of(parsed);
    check_dataset_name(core.dataset);
    if (!holds(core)) malformed_core();
    return core;
  } catch (const json::exception&) {
    malformed_core();
  } catch (const InvalidArgument&) {
    malformed_core();
  }
}

}  // namespace hushgrad
