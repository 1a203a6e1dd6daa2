#include "dpcore/keys/keyring_model.h"

#include <algorithm>
#include <set>

#include <nlohmann/json.hpp>

#include "dpcore/error.h"
#include "dpcore/keys/argon2id.h"
#include "dpcore/keys/bytes.h"
#include "dpcore/keys/names.h"
#include "dpcore/keys/utc_time.h"

namespace hushgrad {
namespace {

using nlohmann::json;
using namespace key_state;

constexpr std::size_t kIdBytes = 16, kWrappedBytes = 40;
constexpr std::size_t kMaxReason = 1024;

[[noreturn]] void malformed(const char* what) {
  throw KeyError(message("[keyring] Expected ", what, ", received something else. Restore the keyring from a backup."));
}

std::string time_text(std::int64_t seconds) { return seconds == 0 ? std::string() : utc_text(seconds); }

std::int64_t time_in(const json& object, const char* field) {
  const std::string text = object.at(field).get<std::string>();
  if (text.empty()) return 0;
  const auto seconds = utc_seconds(text);
  if (!seconds) malformed("times such as 2026-01-31T12:00:00Z");
  return *seconds;
}

std::vector<std::byte> bytes_in(const json& object, const char* field) {
  const std::string digits = object.at(field).get<std::string>();
  if (!is_hex(digits, digits.size() / 2)) malformed("hexadecimal digits");
  std::vector<std::byte> bytes(digits.size() / 2);
  from_hex(digits, bytes);
  return bytes;
}

std::string id_in(const json& object, const char* field, bool may_be_empty = false) {
  const std::string id = object.at(field).get<std::string>();
  if (!is_hex(id, kIdBytes) && !(may_be_empty && id.empty())) malformed("ids of 32 hexadecimal digits");
  return id;
}

json to_json(const KeyChange& change) {
  return {{"state", change.state}, {"time", utc_text(change.time)}, {"actor", change.actor}, {"reason", change.reason}};
}

KeyChange change_from(const json& object) {
  KeyChange change{object.at("state"), time_in(object, "time"), id_in(object, "actor", true), object.at("reason")};
  if (!change.reason.empty() && !is_line(change.reason, kMaxReason)) malformed("reasons of one line");
  return change;
}

json to_json(const KeyRecord& key) {
  json changes = json::array();
  for (const KeyChange& change : key.changes) changes.push_back(to_json(change));
  return {{"id", key.id},
          {"tenant", key.tenant},
          {"dataset", key.dataset},
          {"state", key.state},
          {"activates", time_text(key.activates)},
          {"expires", time_text(key.expires)},
          {"usage_limit", key.usage_limit},
          {"uses", key.uses},
          {"quorum", key.quorum},
          {"rotation_due", key.rotation_due},
          {"wrapped", to_hex(key.wrapped)},
          {"changes", changes}};
}

void check(const KeyRecord& key) {
  const std::set<std::string> states{kActive, kSuspended, kDeactivated, kCompromised, kDestroyed};
  if (!is_plain_name(key.tenant) || (!key.dataset.empty() && !is_plain_name(key.dataset))) malformed("plain names");
  if (!states.contains(key.state) || key.changes.empty() || key.changes.back().state != key.state) {
    malformed("a known state that is that of the last change");
  }
  if (key.quorum < 0) malformed("a quorum of 0 or more");
  if (key.wrapped.size() != (key.state == kDestroyed ? 0 : kWrappedBytes)) {
    malformed("a wrapped key of 40 bytes, or none when destroyed");
  }
}

KeyRecord key_from(const json& object) {
  KeyRecord key{id_in(object, "id"),
                object.at("tenant"),
                object.at("dataset"),
                object.at("state"),
                time_in(object, "activates"),
                time_in(object, "expires"),
                object.at("usage_limit").get<std::uint64_t>(),
                object.at("uses").get<std::uint64_t>(),
                object.at("quorum").get<int>(),
                object.at("rotation_due").get<bool>(),
                bytes_in(object, "wrapped"),
                {}};
  for (const json& change : object.at("changes")) key.changes.push_back(change_from(change));
  check(key);
  return key;
}

json to_json(const Identity& identity) {
  return {{"name", identity.name},
          {"role", identity.role},
          {"public_key", identity.key.pem()},
          {"added", time_text(identity.added)},
          {"removed", time_text(identity.removed)}};
}

Identity identity_from(const json& object) {
  Identity identity{object.at("name"), object.at("role"), PublicKey::from_pem(object.at("public_key")),
                    time_in(object, "added"), time_in(object, "removed")};
  if (!is_plain_name(identity.name) || (identity.role != "custodian" && identity.role != "approver")) {
    malformed("identities with a name and a role");
  }
  return identity;
}

json to_json(const BreakGlass& grant) {
  return {{"key", grant.key_id}, {"until", utc_text(grant.until)}, {"actor", grant.actor}, {"reason", grant.reason}};
}

BreakGlass grant_from(const json& object) {
  return {id_in(object, "key"), time_in(object, "until"), id_in(object, "actor", true), object.at("reason")};
}

json to_json(const KeyringProtection& protection) {
  json object{{"kdf", protection.kdf},
              {"cost", protection.cost},
              {"machine", protection.machine},
              {"salt", protection.salt}};
  if (protection.kdf == "argon2id") {
    object["passes"] = protection.passes;
    object["lanes"] = protection.lanes;
  }
  return object;
}

KeyringProtection protection_from(const json& object) {
  KeyringProtection protection{object.at("kdf"), object.at("cost").get<std::uint64_t>(),
                               object.at("machine").get<bool>(), id_in(object, "salt", true)};
  if (protection.kdf == "argon2id") {
    protection.passes = object.at("passes").get<std::uint64_t>();
    protection.lanes = object.at("lanes").get<std::uint64_t>();
  }
  const std::uint64_t cost = protection.cost;
  const bool scrypt = protection.kdf == "scrypt" && cost >= 1 << 14 && cost <= 1 << 22 && (cost & (cost - 1)) == 0;
  const bool pbkdf2 = protection.kdf == "pbkdf2" && cost >= 100'000 && cost <= 100'000'000;
  const bool argon2id =
      protection.kdf == "argon2id" && Argon2Cost{cost, protection.passes, protection.lanes}.acceptable();
  if (!argon2id && !scrypt && !pbkdf2 && !(protection.kdf.empty() && cost == 0)) malformed("a known protection with sane costs");
  if (protection.wraps_root() != !protection.salt.empty()) malformed("a salt where the root is wrapped");
  return protection;
}

void check(const KeyringModel& model) {
  std::set<std::string> ids, current, tenants;
  for (const KeyRecord& key : model.keys) {
    if (!ids.insert(key.id).second) malformed("each key id once");
    if (key.is_tenant() && key.state != kDestroyed && !tenants.insert(key.tenant).second) {
      malformed("one key a tenant");
    }
    if (!key.is_tenant() && key.state == kActive && !current.insert(key.dataset).second) malformed("one active key a dataset");
    if (!key.is_tenant() && key.state != kDestroyed && !tenants.contains(key.tenant)) {
      malformed("the tenant of a dataset before it");
    }
  }
}

template <typename T, typename From>
std::vector<T> list_in(const json& object, const char* field, From from) {
  std::vector<T> items;
  for (const json& item : object.at(field)) items.push_back(from(item));
  return items;
}

template <typename T>
json list_of(const std::vector<T>& items) {
  json list = json::array();
  for (const T& item : items) list.push_back(to_json(item));
  return list;
}

}  // namespace

std::string KeyRecord::state_at(std::int64_t now) const {
  if (state != kActive) return state;
  if (now < activates) return kPreActive;
  return expires != 0 && now >= expires ? kDeactivated : kActive;
}

const KeyRecord* KeyringModel::find(const std::string& key_id) const {
  const auto found = std::find_if(keys.begin(), keys.end(), [&](const KeyRecord& key) { return key.id == key_id; });
  return found == keys.end() ? nullptr : &*found;
}

const KeyRecord* KeyringModel::tenant_key(const std::string& tenant) const {
  for (const KeyRecord& key : keys) {
    if (key.is_tenant() && key.tenant == tenant && key.state != kDestroyed) return &key;
  }
  return nullptr;
}

const KeyRecord* KeyringModel::current(const std::string& dataset) const {
  for (const char* state : {kActive, kSuspended}) {
    for (const KeyRecord& key : keys) {
      if (key.dataset == dataset && !key.is_tenant() && key.state == state) return &key;
    }
  }
  return nullptr;
}

KeyRecord* KeyringModel::find(const std::string& key_id) {
  return const_cast<KeyRecord*>(std::as_const(*this).find(key_id));
}
KeyRecord* KeyringModel::tenant_key(const std::string& tenant) {
  return const_cast<KeyRecord*>(std::as_const(*this).tenant_key(tenant));
}
KeyRecord* KeyringModel::current(const std::string& dataset) {
  return const_cast<KeyRecord*>(std::as_const(*this).current(dataset));
}

std::vector<PublicKey> KeyringModel::present(const std::string& role) const {
  std::vector<PublicKey> found;
  for (const Identity& identity : identities) {
    if (identity.role == role && identity.removed == 0) found.push_back(identity.key);
  }
  return found;
}

bool KeyringModel::under_break_glass(const std::string& key_id, std::int64_t now) const {
  return std::any_of(grants.begin(), grants.end(),
                     [&](const BreakGlass& grant) { return grant.key_id == key_id && now < grant.until; });
}

bool KeyringModel::may_open(const KeyRecord& key, std::int64_t now) const {
  const std::string state = key.state_at(now);
  if (state == kActive || state == kDeactivated) return true;
  return (state == kSuspended || state == kCompromised) && under_break_glass(key.id, now);
}

std::string to_text(const KeyringModel& model) {
  return json{{"id", model.id},
              {"generation", model.generation},
              {"changed", utc_text(model.changed)},
              {"protection", to_json(model.protection)},
              {"log", {{"public_key", model.log_key_pem},
                       {"key", to_hex(model.log_key)},
                       {"sequence", model.log_sequence},
                       {"hash", model.log_hash}}},
              {"identities", list_of(model.identities)},
              {"break_glass", list_of(model.grants)},
              {"keys", list_of(model.keys)}}
      .dump();
}

KeyringModel keyring_model_from(const std::string& text) {
  try {
    const json object = json::parse(text);
    const json& log = object.at("log");
    KeyringModel model{id_in(object, "id"),
                       object.at("generation").get<std::uint64_t>(),
                       time_in(object, "changed"),
                       protection_from(object.at("protection")),
                       log.at("public_key"),
                       bytes_in(log, "key"),
                       log.at("sequence").get<std::uint64_t>(),
                       log.at("hash"),
                       list_in<Identity>(object, "identities", identity_from),
                       list_in<BreakGlass>(object, "break_glass", grant_from),
                       list_in<KeyRecord>(object, "keys", key_from)};
    check(model);
    if (to_text(model) != text) malformed("canonical JSON with the fields of version 2");
    return model;
  } catch (const json::exception&) {
    malformed("JSON with the fields of version 2");
  } catch (const InvalidArgument&) {
    malformed("public keys and times that can be read");
  }
}

KeyInfo key_info(const KeyRecord& key, std::int64_t now) {
  return {key.id, key.dataset, utc_text(key.created()), key.state_at(now), key.tenant, time_text(key.expires)};
}

}  // namespace hushgrad
