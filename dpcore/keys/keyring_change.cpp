// What changes a keyring; the rest of the class is in keyring.cpp.
#include <algorithm>
#include <sstream>
#include <utility>

#include "dpcore/error.h"
#include "dpcore/keys/certificate.h"
#include "dpcore/keys/bytes.h"
#include "dpcore/keys/kdf.h"
#include "dpcore/keys/key_wrap.h"
#include "dpcore/keys/keyring_state.h"
#include "dpcore/keys/new_keyring.h"
#include "dpcore/keys/state_folder.h"
#include "dpcore/keys/utc_time.h"

namespace hushgrad {
namespace {

using namespace key_state;

constexpr std::size_t kMaxReason = 1024;
constexpr std::size_t kMaxFileName = 4096;
constexpr int kMaxMinutes = 60;

void check_reason(const std::string& reason) {
  if (is_line(reason, kMaxReason)) return;
  throw InvalidArgument(
      "[keyring] Expected a reason of 1..1024 bytes of UTF-8 without control characters, received another. It goes into "
      "the log: no patient data.");
}

void check_actor(const KeyringModel& model, const std::string& actor) {
  const auto custodians = model.present("custodian");
  const bool may = custodians.empty() || std::any_of(custodians.begin(), custodians.end(), [&](const PublicKey& key) {
    return key.id() == actor;
  });
  const auto approvers = model.present("approver");
  const bool approves = std::any_of(approvers.begin(), approvers.end(), [&](const PublicKey& key) {
    return key.id() == actor;
  });
  if (may && !approves) return;
  throw Denied("unknown_actor",
               "[keyring] Expected a registered custodian to change keys, received another identity or none. Open the "
               "keyring with the identity of a custodian.");
}

std::string joined(const std::vector<std::string>& words, const char* between = " ") {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : between) + word;
  return text;
}

std::vector<std::string> split(const std::string& text, char between) {
  std::vector<std::string> words;
  std::istringstream in(text);
  for (std::string word; std::getline(in, word, between);) words.push_back(word);
  return words;
}

std::map<std::string, std::string> scope_of(const KeyringModel& model, const KeyTarget& target) {
  std::map<std::string, std::string> scope{{"keyring", model.id}};
  if (!target.dataset.empty()) scope["dataset"] = target.dataset;
  if (!target.tenant.empty()) scope["tenant"] = target.tenant;
  if (!target.key_id.empty()) scope["key"] = target.key_id;
  return scope;
}

// Whether `details` are of exactly this scope.
bool holds(const std::map<std::string, std::string>& details, const std::map<std::string, std::string>& scope) {
  return std::all_of(scope.begin(), scope.end(), [&](const auto& part) {
    const auto found = details.find(part.first);
    return found != details.end() && found->second == part.second;
  });
}

// What an entry of the log announces, where the keyring says that it was done: a process that was stopped between the two
// leaves an entry without its change.
std::optional<DestructionRecord> destruction(const KeyringModel& model, const KeyLogEntry& entry, const std::string& hash) {
  const auto detail = [&](const char* name) {
    const auto found = entry.details.find(name);
    return found == entry.details.end() ? std::string() : found->second;
  };
  DestructionRecord record{model.id, entry.generation, entry.time, entry.actor, detail("approvers"), detail("reason"),
                           {}, split(detail("files"), '\n'), entry.sequence, hash};
  for (const std::string& id : split(detail("keys"), ' ')) {
    const KeyRecord* key = model.find(id);
    if (key == nullptr || key->state != kDestroyed || utc_text(key->changes.back().time) != entry.time) return std::nullopt;
    KeyRecord before = *key;
    before.changes.pop_back();
    before.state = before.changes.empty() ? kDestroyed : before.changes.back().state;
    record.keys.push_back({id, key->tenant, key->dataset, utc_text(key->created()), before.state_at(key->changes.back().time)});
  }
  return record;
}

}  // namespace

void Keyring::Change::authorize(const std::string& action, const std::map<std::string, std::string>& scope, int quorum,
                                const Authorization& authorization) {
  if (quorum == 0) return;
  if (!authorization.operation || actor.empty()) {
    throw Denied("too_few", message("[keyring] Expected ", action, " with ", quorum,
                                    " approvals, received none. Ask with `hushgrad keys request` in the name of an "
                                    "identity, and let the approvers sign."));
  }
  const Operation& operation = *authorization.operation;
  details["nonce"] = operation.nonce;
  check_scope(operation, action, scope, actor);
  const auto approvers = check_approvals(operation, authorization.approvals,
                                         {model.present("approver"), quorum, now, log.used_nonces()});
  details["approvers"] = joined(approvers);
  details["operation"] = to_hex(sha384(text_bytes(to_text(operation))));
}

std::vector<KeyRecord*> Keyring::Change::targets(const KeyTarget& target) const {
  const int named = !target.dataset.empty() + !target.tenant.empty() + !target.key_id.empty();
  if (named != 1) {
    throw InvalidArgument("[keyring] Expected a dataset, a tenant or a key, received none or several. Name one.");
  }
  std::vector<KeyRecord*> found;
  for (KeyRecord& key : model.keys) {
    const bool is_target = target.dataset.empty()
                               ? (target.tenant.empty() ? key.id == target.key_id && !key.is_tenant() : key.tenant == target.tenant)
                               : key.dataset == target.dataset;
    if (is_target && key.state != kDestroyed) found.push_back(&key);
  }
  if (found.empty()) {
    throw KeyError("[keyring] Expected keys of that name that exist, received none. See `hushgrad keys list`.");
  }
  return found;
}

std::map<std::string, std::string> Keyring::Change::scope(const KeyTarget& target) const {
  return scope_of(model, target);
}

int Keyring::Change::largest_quorum() const {
  int largest = 0;
  for (const KeyRecord& key : model.keys) {
    if (key.state != kDestroyed) largest = std::max(largest, key.quorum);
  }
  return largest;
}

void Keyring::Change::move(KeyRecord& key, const std::string& state, const std::string& reason) const {
  key.state = state;
  key.changes.push_back({state, now, actor, reason});
}

// The order is the guarantee: log entry on disk, then the keyring. What a crash leaves in between is an entry without
// its change, which verify() shows.
void Keyring::publish(KeyringModel model, KeyLog& log, KeyLogEntry entry, std::int64_t now, bool erase) const {
  // The root stays where it is; the model that is written replaces the one that was read.
  const RootKey& root = state_->contents->root;
  model.generation += 1;
  model.changed = now;
  entry.time = utc_text(model.changed);
  entry.keyring = model.id;
  entry.generation = model.generation;
  entry.actor = state_->actor();
  log.append(std::move(entry), open_log_key(model, root));
  model.log_sequence = log.sequence();
  model.log_hash = log.hash_at(log.sequence());
  replace_keyring(path(), keyring_text(model, root, state_->protection()).bytes(), erase);
  // The lock is on the old file; the new one is read as any other process would.
  state_->install(read_keyring(path(), state_->protection()), true);
}

void Keyring::change(const std::string& action, Details details, const std::function<void(Change&)>& work,
                     bool accept_older) {
  const std::lock_guard lock(state_->mutex);
  LockedKeyring locked = lock_keyring(path(), state_->protection());
  state_->install(std::move(locked.contents), accept_older);
  const KeyringModel before = state_->contents->model;
  KeyringModel model = before;
  KeyLog log = KeyLog::read(log_path(), PublicKey::from_pem(model.log_key_pem));
  log.check_holds(model.log_sequence, model.log_hash);
  Change change{model, state_->contents->root, log, state_->now(), state_->actor(), details};
  try {
    check_actor(model, change.actor);
    work(change);
  } catch (const Denied& denied) {
    details["denied_action"] = action;
    details["denied_because"] = denied.reason();
    publish(before, log, {.action = "denied", .details = details}, change.now, false);
    throw;
  }
  if (!change.nothing) publish(std::move(model), log, {.action = action, .details = details}, change.now, change.erase);
}

void Keyring::create_key(const std::string& dataset, const KeyOptions& options) {
  check_dataset_name(dataset);
  check_tenant_name(options.tenant);
  if (options.quorum < 0 || options.activates < 0 || options.expires < 0 ||
      (options.expires != 0 && options.expires <= options.activates)) {
    throw InvalidArgument("[keyring] Expected a quorum of 0 or more and an end after the beginning, received others.");
  }
  change("create", {{"dataset", dataset}, {"tenant", options.tenant}, {"quorum", std::to_string(options.quorum)}},
         [&](Change& c) {
    for (const KeyRecord& key : c.model.keys) {
      if (key.dataset == dataset && key.tenant != options.tenant && key.state != kDestroyed) {
        throw InvalidArgument(message("[keyring] Expected dataset ", dataset, " under its tenant ", key.tenant,
                                      ", received another tenant. Choose another name for the dataset."));
      }
      if (key.dataset == dataset && key.state == kSuspended) {
        throw KeyError(message("[keyring] Expected no suspended key of dataset ", dataset,
                               ", received one. Resume it, or revoke it and create another."));
      }
    }
    if (options.expires != 0 && options.expires <= c.now) {
      throw InvalidArgument("[keyring] Expected an end in the future, received one that has passed.");
    }
    if (options.quorum > static_cast<int>(c.model.present("approver").size())) {
      throw InvalidArgument(message("[keyring] Expected at least ", options.quorum,
                                    " registered approvers for this quorum, received fewer. Register them first with "
                                    "`hushgrad keys identity add`."));
    }
    KeyRecord* current = c.model.current(dataset);
    if (current != nullptr && current->state_at(c.now) != kDeactivated) {
      c.nothing = true;
      return;
    }
    if (current != nullptr) c.move(*current, kDeactivated, "expired");
    const SecretBytes tenant_key = c.model.tenant_key(options.tenant) == nullptr
                                       ? add_tenant_key(c.model, c.root, options.tenant, c.now, c.actor)
                                       : open_tenant_key(c.model, c.root, options.tenant);
    KeyRecord key;
    key.id = random_id();
    key.tenant = options.tenant;
    key.dataset = dataset;
    key.state = kActive;
    key.activates = options.activates;
    key.expires = options.expires;
    key.usage_limit = options.usage_limit;
    key.quorum = options.quorum;
    key.wrapped = aes256_kwp_wrap(tenant_key.bytes(), SecretBytes::random(32).bytes());
    key.changes.push_back({kActive, c.now, c.actor, ""});
    c.details["key"] = key.id;
    c.model.keys.push_back(std::move(key));
  });
}

void Keyring::rotate_key(const std::string& dataset, const std::string& reason) {
  check_dataset_name(dataset);
  if (!reason.empty()) check_reason(reason);
  change("rotate", {{"dataset", dataset}, {"reason", reason}}, [&](Change& c) {
    KeyRecord* last = nullptr;
    for (KeyRecord& key : c.model.keys) {
      if (key.dataset == dataset && key.state != kDestroyed) last = &key;
    }
    if (last == nullptr || last->state == kSuspended) {
      throw KeyError(message("[keyring] Expected a key of dataset ", dataset, " to rotate, received ",
                             last == nullptr ? "none. Create one first." : "one that is suspended. Resume it first."));
    }
    KeyRecord next = *last;
    next.id = random_id();
    next.state = kActive;
    next.uses = 0;
    next.rotation_due = false;
    next.activates = 0;
    next.expires = last->expires == 0 ? 0 : c.now + (last->expires - std::max(last->created(), last->activates));
    next.wrapped = aes256_kwp_wrap(open_tenant_key(c.model, c.root, last->tenant).bytes(), SecretBytes::random(32).bytes());
    next.changes = {{kActive, c.now, c.actor, reason}};
    if (last->state == kActive) c.move(*last, kDeactivated, reason.empty() ? "rotated" : reason);
    for (KeyRecord& key : c.model.keys) {
      if (key.dataset == dataset) key.rotation_due = false;
    }
    c.details["key"] = next.id;
    c.model.keys.push_back(std::move(next));
  });
}

void Keyring::move(const std::string& action, const KeyTarget& target, const std::string& reason,
                   const Authorization* authorization, const std::string& from, const std::string& to) {
  check_reason(reason);
  change(action, {{"reason", reason}}, [&](Change& c) {
    std::vector<KeyRecord*> keys = c.targets(target);
    std::erase_if(keys, [&](const KeyRecord* key) {
      if (key->is_tenant() || key->state == to) return true;
      return !from.empty() && key->state != from;
    });
    for (const auto& [name, value] : c.scope(target)) c.details[name] = value;
    if (keys.empty()) {
      throw KeyError(message("[keyring] Expected keys that can be changed to ", to, ", received none in that state."));
    }
    int quorum = 0;
    for (const KeyRecord* key : keys) quorum = std::max(quorum, key->quorum);
    if (authorization != nullptr) c.authorize(action, c.scope(target), quorum, *authorization);
    for (KeyRecord* key : keys) {
      // Resumed, a key is what it was before it was suspended.
      const bool was_active = key->changes.size() < 2 || key->changes[key->changes.size() - 2].state == kActive;
      c.move(*key, to == kActive && !was_active ? kDeactivated : to, reason);
    }
  });
}

void Keyring::suspend(const KeyTarget& target, const std::string& reason) {
  check_reason(reason);
  change("suspend", {{"reason", reason}}, [&](Change& c) {
    std::vector<KeyRecord*> keys = c.targets(target);
    std::erase_if(keys, [](const KeyRecord* key) {
      return key->is_tenant() || (key->state != kActive && key->state != kDeactivated);
    });
    for (const auto& [name, value] : c.scope(target)) c.details[name] = value;
    if (keys.empty()) throw KeyError("[keyring] Expected keys in use to suspend, received none.");
    for (KeyRecord* key : keys) c.move(*key, kSuspended, reason);
  });
}

void Keyring::resume(const KeyTarget& target, const std::string& reason, const Authorization& authorization) {
  move("resume", target, reason, &authorization, kSuspended, kActive);
}

void Keyring::revoke(const KeyTarget& target, const std::string& reason) {
  move("revoke", target, reason, nullptr, "", kCompromised);
}

void Keyring::reinstate(const KeyTarget& target, const std::string& reason, const Authorization& authorization) {
  move("reinstate", target, reason, &authorization, kCompromised, kDeactivated);
}

std::string Keyring::shred(const KeyTarget& target, const std::string& reason, const std::vector<std::string>& files,
                           const Authorization& authorization) {
  check_reason(reason);
  for (const std::string& file : files) {
    if (!is_line(file, kMaxFileName)) {
      throw InvalidArgument("[keyring] Expected names of files of 1..4096 bytes of UTF-8 without control characters.");
    }
  }
  change("shred", {{"reason", reason}}, [&](Change& c) {
    const std::vector<KeyRecord*> keys = c.targets(target);
    for (const auto& [name, value] : c.scope(target)) c.details[name] = value;
    int quorum = 0;
    for (const KeyRecord* key : keys) quorum = std::max(quorum, key->quorum);
    c.authorize("shred", c.scope(target), quorum, authorization);
    std::vector<std::string> ids;
    for (KeyRecord* key : keys) {
      c.move(*key, kDestroyed, reason);
      key->wrapped.clear();
      key->rotation_due = false;
      ids.push_back(key->id);
    }
    c.details["keys"] = joined(ids);
    c.details["files"] = joined(files, "\n");
    c.erase = true;
  });
  return certificate(target);
}

std::string Keyring::certificate(const KeyTarget& target) const {
  const std::lock_guard lock(state_->mutex);
  const KeyringContents& contents = state_->fresh();
  KeyLog log = KeyLog::read(log_path(), PublicKey::from_pem(contents.model.log_key_pem));
  log.check_holds(contents.model.log_sequence, contents.model.log_hash);
  const auto scope = scope_of(contents.model, target);
  const auto& entries = log.entries();
  for (auto entry = entries.rbegin(); entry != entries.rend(); ++entry) {
    if (entry->action != "shred" || !holds(entry->details, scope)) continue;
    if (const auto record = destruction(contents.model, *entry, log.hash_at(entry->sequence))) {
      return sign_certificate(*record, open_log_key(contents.model, contents.root));
    }
  }
  throw KeyError("[keyring] Expected keys of that name that were destroyed, received none. See `hushgrad keys list`.");
}

void Keyring::break_glass(const KeyTarget& target, const std::string& reason, int minutes,
                          const Authorization& authorization) {
  check_reason(reason);
  if (minutes < 1 || minutes > kMaxMinutes) {
    throw InvalidArgument(message("[keyring] Expected 1..60 minutes, received ", minutes, "."));
  }
  change("break-glass", {{"reason", reason}, {"minutes", std::to_string(minutes)}}, [&](Change& c) {
    std::vector<KeyRecord*> keys = c.targets(target);
    for (const auto& [name, value] : c.scope(target)) c.details[name] = value;
    std::erase_if(keys, [](const KeyRecord* key) {
      return key->is_tenant() || (key->state != kSuspended && key->state != kCompromised);
    });
    if (keys.empty()) {
      throw KeyError("[keyring] Expected suspended or revoked keys, received none: the others open files as they are.");
    }
    int quorum = 0;
    for (const KeyRecord* key : keys) quorum = std::max(quorum, key->quorum);
    auto scope = c.scope(target);
    scope["minutes"] = std::to_string(minutes);
    c.authorize("break-glass", scope, quorum, authorization);
    std::erase_if(c.model.grants, [&](const BreakGlass& grant) { return grant.until <= c.now; });
    for (KeyRecord* key : keys) {
      key->rotation_due = true;
      c.model.grants.push_back({key->id, c.now + 60 * minutes, c.actor, reason});
    }
    c.details["until"] = utc_text(c.now + 60 * minutes);
  });
}

void Keyring::add_identity(const std::string& name, const std::string& role, const PublicKey& key,
                           const Authorization& authorization) {
  if (!is_plain_name(name) || (role != "custodian" && role != "approver")) {
    throw InvalidArgument("[keyring] Expected a plain name and the role custodian or approver, received others.");
  }
  change("add-identity", {{"identity", key.id()}, {"name", name}, {"role", role}}, [&](Change& c) {
    for (const Identity& identity : c.model.identities) {
      if (identity.key == key && identity.removed == 0) {
        throw InvalidArgument(message("[keyring] Expected a key that is not registered, received that of ", identity.name,
                                      " (", identity.role, "). Who changes keys does not approve: use another key, of "
                                      "another person."));
      }
    }
    c.authorize("add-identity", {{"keyring", c.model.id}, {"identity", key.id()}, {"name", name}, {"role", role}},
                c.largest_quorum(), authorization);
    c.model.identities.push_back({name, role, key, c.now, 0});
  });
}

void Keyring::remove_identity(const std::string& identity, const std::string& reason, const Authorization& authorization) {
  check_reason(reason);
  change("remove-identity", {{"identity", identity}, {"reason", reason}}, [&](Change& c) {
    const auto found = std::find_if(c.model.identities.begin(), c.model.identities.end(), [&](const Identity& i) {
      return i.removed == 0 && i.key.id() == identity;
    });
    if (found == c.model.identities.end()) throw KeyError("[keyring] Expected a registered identity, received another.");
    const int quorum = c.largest_quorum();
    if (found->role == "custodian" && c.model.present("custodian").size() == 1) {
      throw InvalidState(
          "[keyring] Expected to keep one custodian, received the removal of the last: everybody could change keys then. "
          "Register another custodian first.");
    }
    if (found->role == "approver" && static_cast<int>(c.model.present("approver").size()) <= quorum) {
      throw InvalidState(message("[keyring] Expected to keep the ", quorum,
                                 " approvers that a key asks for, received a removal of one of them. Register another "
                                 "approver first."));
    }
    c.authorize("remove-identity", {{"keyring", c.model.id}, {"identity", identity}}, quorum, authorization);
    found->removed = c.now;
  });
}

void Keyring::protect(const KeyringAccess& access, bool machine) {
  const KeyringProtection protection = new_protection(access.passphrase.has_value(), machine);
  SecretBytes key(0);
  if (protection.wraps_root()) key = hushgrad::protection_key(protection, access.passphrase, true);
  std::string old_salt;
  SecretBytes old_key(0);
  try {
    change("protect", {{"passphrase", access.passphrase ? "yes" : "no"}, {"machine", machine ? "yes" : "no"}},
           [&](Change& c) {
      c.model.protection = protection;
      c.erase = true;
      old_salt = state_->protection_salt;
      old_key = std::move(state_->protection_secret);
      state_->keep_protection(protection, std::move(key));
    });
  } catch (...) {
    if (state_->protection_salt == protection.salt) {  // the file still has the old protection
      state_->protection_salt = old_salt;
      state_->protection_secret = std::move(old_key);
    }
    throw;
  }
}

void Keyring::accept_restored(const std::string& path, const KeyringAccess& access, const std::string& reason,
                              const Authorization& authorization) {
  check_reason(reason);
  Keyring keyring = open(path, access, true);
  keyring.change("accept-restored", {{"reason", reason}}, [&](Change& c) {
    c.authorize("accept-restored", {{"keyring", c.model.id}}, c.largest_quorum(), authorization);
    const auto seen = seen_keyring(c.model.id);
    if (seen) c.model.generation = std::max(c.model.generation, seen->generation);
  }, true);
}

// A use under a limit is on disk before the key is used. Called with the mutex held.
void Keyring::count_use(const std::string& dataset) const {
  LockedKeyring locked = lock_keyring(path(), state_->protection());
  state_->install(std::move(locked.contents));
  const std::string key_id = sealing_key(dataset).id;  // which may be another by now
  KeyringModel model = state_->contents->model;
  KeyRecord* key = model.find(key_id);
  if (key->usage_limit == 0) return;
  if (key->uses >= key->usage_limit) {
    throw KeyError(
        "[keyring] Expected a key with uses left, received one that reached its limit. Run `hushgrad keys rotate`.");
  }
  key->uses += 1;
  model.generation += 1;
  model.changed = std::max(model.changed, state_->now());
  replace_keyring(path(), keyring_text(model, state_->contents->root, state_->protection()).bytes(), false);
  state_->install_newest([&] { return read_keyring(path(), state_->protection()); });
}

// Called with the mutex held.
void Keyring::log_use(const WrappedKey& wrapped) const {
  LockedKeyring locked = lock_keyring(path(), state_->protection());
  state_->install(std::move(locked.contents));
  opening_key(wrapped);  // it may have been shredded meanwhile
  const KeyringModel& model = state_->contents->model;
  KeyLog log = KeyLog::read(log_path(), PublicKey::from_pem(model.log_key_pem));
  log.check_holds(model.log_sequence, model.log_hash);
  publish(model, log, {.action = "open-under-break-glass", .details = {{"key", wrapped.key_id}}}, state_->now(), false);
}

}  // namespace hushgrad
