#include "accounting/access/access_state.h"

#include <algorithm>
#include <charconv>
#include <functional>
#include <nlohmann/json.hpp>

#include "accounting/access/digest.h"
#include "dpcore/error.h"
#include "dpcore/keys/approval.h"
#include "dpcore/keys/utc_time.h"

namespace hushgrad {
namespace {

constexpr std::int64_t kSecond = 1'000'000;
constexpr std::int64_t kLongestSession = 12 * 3600 * kSecond;
const std::string kBegin = "-----BEGIN PUBLIC KEY-----\n", kEnd = "-----END PUBLIC KEY-----\n";

[[noreturn]] void refuse(const std::string& expected, const std::string& received, const std::string& advice) {
  throw InvalidArgument(message("[access] Expected ", expected, ", received ", received, ". ", advice));
}

const std::string& field(const LedgerRecord& record, const char* key) { return record.fields.at(key); }

std::int64_t sequence_in(const std::string& text) {
  std::int64_t sequence = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), sequence);
  if (error != std::errc() || end != text.data() + text.size() || sequence < 1 || std::to_string(sequence) != text) {
    refuse("the sequence of an entry", "another text", "List them first.");
  }
  return sequence;
}

}  // namespace

std::string key_line(const PublicKey& key) {
  std::string line;
  const std::string pem = key.pem();
  for (const char c : pem.substr(kBegin.size(), pem.size() - kBegin.size() - kEnd.size())) {
    if (c != '\n') line += c;
  }
  return line;
}

PublicKey key_in(const std::string& line) {
  std::string pem = kBegin;
  for (std::size_t at = 0; at < line.size(); at += 64) pem += line.substr(at, 64) + "\n";
  return PublicKey::from_pem(pem + kEnd);
}

std::string time_text(std::int64_t microseconds) { return microseconds == 0 ? "" : utc_text(microseconds / kSecond); }

std::int64_t time_in(const std::string& text) {
  if (text.empty()) return 0;
  const auto seconds = utc_seconds(text);
  if (!seconds) refuse("a time as 2026-01-31T12:00:00Z", "another text", "Give it in UTC.");
  return *seconds * kSecond;
}

void AccessState::apply(const LedgerRecord& record, std::int64_t sequence, std::int64_t time) {
  if (record.kind == "actor") return apply_actor(record, sequence);
  if (record.kind == "grant") return apply_grant(record, sequence, time);
  if (record.kind == "revoke") return apply_revoke(record, sequence, time);
  if (record.kind == "policy") return apply_policy(record, sequence, time);
  if (record.kind == "approval") return apply_approval(record, sequence, time);
  if (record.kind == "break_glass") return apply_break_glass(record, sequence, time);
  if (record.kind == "review") return apply_review(record, sequence);
  if (record.kind == "provider") return apply_provider(record, sequence);
  if (record.kind == "session") return apply_session(record, time);
}

const Actor* AccessState::actor(const std::string& name) const {
  for (const Actor& candidate : actors) {
    if (candidate.name == name) return candidate.revoked ? nullptr : &candidate;
  }
  return nullptr;
}

std::string AccessState::owner_of(const std::string& key_id, std::int64_t time, bool* is_session) const {
  if (is_session != nullptr) *is_session = false;
  for (const Actor& candidate : actors) {
    if (candidate.key.id() == key_id && !candidate.revoked) return candidate.name;
  }
  for (const TokenSession& session : sessions) {
    if (session.key.id() != key_id || time >= session.expires || actor(session.actor) == nullptr) continue;
    if (is_session != nullptr) *is_session = true;
    return session.actor;
  }
  return {};
}

const PublicKey* AccessState::key(const std::string& key_id) const {
  for (const Actor& candidate : actors) {
    if (candidate.key.id() == key_id) return &candidate.key;
  }
  for (const TokenSession& session : sessions) {
    if (session.key.id() == key_id) return &session.key;
  }
  return nullptr;
}

bool AccessState::is_active(const Grant& grant, std::int64_t time) const {
  const bool in_time = time >= grant.starts && (grant.expires == 0 || time < grant.expires);
  return !grant.revoked && in_time && actor(grant.name) != nullptr;
}

bool AccessState::holds(const std::string& name, Role role, std::int64_t time) const {
  return std::any_of(grants.begin(), grants.end(), [&](const Grant& grant) {
    return grant.name == name && grant.role == role && is_active(grant, time);
  });
}

std::vector<PublicKey> AccessState::approvers(const std::string& dataset, const std::string& purpose, std::int64_t time) const {
  std::vector<PublicKey> keys;
  for (const Actor& candidate : actors) {
    const bool may_approve = std::any_of(grants.begin(), grants.end(), [&](const Grant& grant) {
      const bool covers = matches(grant.dataset, dataset) && (purpose.empty() || matches(grant.purpose, purpose));
      return grant.name == candidate.name && grant.role == Role::approver && is_active(grant, time) && covers;
    });
    if (may_approve) keys.push_back(candidate.key);
  }
  return keys;
}

const BrokenGlass* AccessState::open_glass(const std::string& name, Action action, const std::string& dataset,
                                           std::int64_t time) const {
  for (const BrokenGlass& glass : glasses) {
    const bool fits = glass.actor == name && glass.action == action && matches(glass.dataset, dataset);
    if (fits && time < glass.expires) return &glass;
  }
  return nullptr;
}

bool AccessState::may_combine(Role one, Role other) const {
  if (!conflict(one, other)) return true;
  if (policy() == nullptr) return false;
  const auto& pairs = policy()->insecure_combine;
  return std::any_of(pairs.begin(), pairs.end(), [&](const auto& pair) {
    return (pair.first == one && pair.second == other) || (pair.first == other && pair.second == one);
  });
}

const PolicyInForce* AccessState::policy_of_version(const std::string& version) const {
  for (const PolicyInForce& candidate : policies) {
    if (std::to_string(candidate.policy.version) == version) return &candidate;
  }
  return nullptr;
}

void AccessState::apply_actor(const LedgerRecord& record, std::int64_t sequence) {
  const std::string& name = field(record, "name");
  if (name.empty()) refuse("an actor with a name", "none", "Name it.");
  if (!on() && field(record, "actor") != name) refuse("a first actor who adds itself", "another", "Begin with the officer.");
  if (!on()) providers.clear();  // nobody had to prove who believed them
  PublicKey key = key_in(field(record, "key"));
  for (const Actor& known : actors) {
    // Two names of one key would be two people who approve each other.
    if (known.key == key && known.name != name) refuse("a key of its own", "that of another actor", "Make a new key.");
    const std::string& subject = field(record, "subject");
    if (!subject.empty() && known.subject == subject && known.name != name) {
      refuse("a token subject of its own", "that of another actor", "Give another one.");
    }
  }
  const auto known = std::find_if(actors.begin(), actors.end(), [&](const Actor& one) { return one.name == name; });
  Actor made{name, field(record, "team"), field(record, "subject"), std::move(key), sequence, 0};
  if (known == actors.end()) {
    actors.push_back(std::move(made));
    return;
  }
  // A key that was stolen, a subject that is another's, somebody who comes back: what they signed in to before is over.
  if (known->revoked || !(known->key == made.key) || known->subject != made.subject) end_sessions(name);
  *known = std::move(made);
}

void AccessState::end_sessions(const std::string& name) {
  for (TokenSession& session : sessions) {
    if (session.actor == name) session.expires = 0;
  }
}

void AccessState::apply_grant(const LedgerRecord& record, std::int64_t sequence, std::int64_t time) {
  const auto role = role_named(field(record, "role"));
  if (!role) refuse("a known role", "another text", "trainer, approver, privacy_officer, auditor or key_custodian.");
  Grant grant{sequence, field(record, "name"), *role, field(record, "dataset"), field(record, "purpose"),
              time_in(field(record, "starts")), time_in(field(record, "expires")), 0, field(record, "actor"), field(record, "reason")};
  if (actor(grant.name) == nullptr) refuse("an actor of this ledger", "another name", "Add the actor first.");
  if (grant.dataset.empty() || grant.purpose.empty()) refuse("patterns of datasets and purposes", "none", "\"*\" is any.");
  const std::int64_t from = std::max(grant.starts, time);
  if (grant.expires != 0 && grant.expires <= from) refuse("an expiry in the future", "one in the past", "Give a later time.");
  const std::int64_t longest = policy() == nullptr ? 0 : policy()->max_grant_seconds * kSecond;
  if (longest > 0 && (grant.expires == 0 || grant.expires - from > longest)) {
    refuse("a grant no longer than the policy allows", "a longer one", "Give an earlier expiry.");
  }
  for (const Grant& other : grants) {
    const bool lasts = !other.revoked && (other.expires == 0 || other.expires > time);
    if (other.name != grant.name || !lasts || may_combine(other.role, grant.role)) continue;
    throw Denied("separation", message("[access] Expected duties that one person may hold together, received ", to_string(other.role),
                                       " and ", to_string(grant.role), ". Revoke the other grant, give the duty to somebody else, or "
                                       "say so in the policy (separation.insecure_combine)."));
  }
  grants.push_back(std::move(grant));
}

void AccessState::apply_revoke(const LedgerRecord& record, std::int64_t sequence, std::int64_t time) {
  const std::string& target = field(record, "target");
  AccessState after = *this;
  bool found = false;
  if (target.rfind("actor:", 0) == 0) {
    for (Actor& candidate : after.actors) {
      if (candidate.name != target.substr(6) || candidate.revoked) continue;
      candidate.revoked = sequence;
      found = true;
    }
    for (Grant& grant : after.grants) {
      if (grant.name == target.substr(6) && !grant.revoked) grant.revoked = sequence;
    }
  } else if (target.rfind("grant:", 0) == 0) {
    const std::int64_t which = sequence_in(target.substr(6));
    for (Grant& grant : after.grants) {
      if (grant.sequence != which || grant.revoked) continue;
      grant.revoked = sequence;
      found = true;
    }
  }
  if (!found) refuse("actor:NAME or grant:SEQUENCE of one that stands", "another", "List them: hushgrad access list.");
  const bool is_governed = std::any_of(after.grants.begin(), after.grants.end(), [&](const Grant& grant) {
    return grant.role == Role::privacy_officer && grant.dataset == "*" && grant.expires == 0 && after.is_active(grant, time);
  });
  if (!is_governed) refuse("one privacy officer for everything to stay", "a revocation of the last", "Appoint another one first.");
  *this = std::move(after);
}

void AccessState::apply_policy(const LedgerRecord& record, std::int64_t sequence, std::int64_t time) {
  if (record.fields.count("signature") == 0) return;  // a paper of an older ledger; never in force
  const std::string& text = field(record, "policy");
  Policy parsed = parse_policy(text);
  if (field(record, "version") != std::to_string(parsed.version)) refuse("the version of the document", "another", "Sign it again.");
  if (policy() != nullptr && parsed.version <= policy()->version) {
    refuse(message("a version above ", policy()->version), message(parsed.version), "Raise the version in the file.");
  }
  if (field(record, "digest") != hex_digest(text)) refuse("the digest of the document", "another", "Sign it again.");
  const std::string signer = owner_of(field(record, "key"), time);
  const PublicKey* signed_by = signer.empty() ? nullptr : key(field(record, "key"));
  if (signed_by == nullptr || !holds(signer, Role::privacy_officer, time)) {
    throw Denied("unknown_signer", "[policy] Expected the signature of a privacy officer, received one of somebody else. Have an officer sign it.");
  }
  if (!signed_by->verify("policy", bytes_of(text), bytes_from_hex(field(record, "signature")))) {
    throw Denied("altered", "[policy] Expected a signature over this document, received one over another. Sign it again.");
  }
  policies.push_back({sequence, std::move(parsed)});
}

void AccessState::apply_approval(const LedgerRecord& record, std::int64_t sequence, std::int64_t time) {
  if (record.fields.count("operation") == 0) return;  // a paper without signatures; opens nothing
  const Operation operation = operation_from(field(record, "operation"));
  const auto document = nlohmann::json::parse(field(record, "approvals"), nullptr, false);
  if (!document.is_object() || !document.contains("approvals")) refuse("approvals", "something else", "Collect them again.");
  std::vector<Approval> approvals;
  for (const auto& one : document["approvals"]) approvals.push_back(approval_from(one.dump()));
  if (operation.action != field(record, "action")) refuse("the action of the operation", "another", "Ask again.");
  // One person may have several keys: their own, and those of their sign-ins.
  const std::string asker = owner_of(operation.requester, time);
  for (const Approval& one : approvals) {
    if (asker.empty() || owner_of(one.approver, time) != asker) continue;
    throw Denied("self_approval", "[approval] Expected approvals by others, received one by the requester. Ask somebody else.");
  }
  const auto purpose = operation.scope.find("purpose");
  const bool is_run = operation.action == to_string(Action::train) && purpose != operation.scope.end();
  const auto may_approve = approvers(field(record, "subject"), is_run ? purpose->second : "", time);
  const auto allowed = check_approvals(operation, approvals, {may_approve, 1, time / kSecond, used_nonces});
  used_nonces.insert(operation.nonce);
  approval = {sequence, operation.action, operation.requester, field(record, "subject"), operation.scope, static_cast<std::int64_t>(allowed.size())};
}

void AccessState::apply_break_glass(const LedgerRecord& record, std::int64_t sequence, std::int64_t time) {
  const auto action = action_named(field(record, "action"));
  if (!action || *action == Action::break_glass || *action == Action::review || *action == Action::manage_access) {
    refuse("an action that can be opened", "another", "See docs/access.md.");
  }
  const Policy defaults;
  const Policy& rules = policy() == nullptr ? defaults : *policy();
  const std::string& name = field(record, "actor");
  const bool may_break = std::any_of(rules.break_glass_roles.begin(), rules.break_glass_roles.end(),
                                     [&](Role role) { return holds(name, role, time); });
  if (!may_break) throw Denied("no_role", "[access] Expected somebody who may break the glass, received another. Ask a privacy officer.");
  for (const BrokenGlass& earlier : glasses) {
    if (earlier.actor != name || earlier.reviewed || time < earlier.review_due) continue;
    throw Denied("review_overdue", message("[access] Expected earlier break-glasses to be reviewed, received one that is not (entry ",
                                           earlier.sequence, "). Have somebody else review it: hushgrad access review."));
  }
  if (field(record, "reason").empty()) refuse("a reason", "none", "Say why.");
  const std::int64_t expires = time_in(field(record, "expires")), due = time_in(field(record, "review_due"));
  if (expires <= time || expires - time > rules.break_glass_seconds * kSecond) {
    refuse(message("at most ", rules.break_glass_seconds / 60, " minutes"), "more, or none", "Ask for less.");
  }
  if (due < expires || due - expires > rules.review_seconds * kSecond) refuse("a review in time", "a later one", "Leave it out.");
  glasses.push_back({sequence, name, *action, field(record, "dataset"), field(record, "reason"), time, expires, due, 0});
}

void AccessState::apply_review(const LedgerRecord& record, std::int64_t sequence) {
  const std::int64_t which = sequence_in(field(record, "glass"));
  const auto glass = std::find_if(glasses.begin(), glasses.end(), [&](const BrokenGlass& one) { return one.sequence == which; });
  if (glass == glasses.end() || glass->reviewed) refuse("a break-glass that waits for a review", "another entry", "List them.");
  if (glass->actor == field(record, "actor")) throw Denied("self_review", "[access] Expected a review by somebody else, received one's own. Ask another officer.");
  if (field(record, "verdict") != "justified" && field(record, "verdict") != "unjustified") {
    refuse("a verdict justified or unjustified", "another text", "Decide.");
  }
  glass->reviewed = sequence;
}

void AccessState::apply_provider(const LedgerRecord& record, std::int64_t sequence) {
  if (field(record, "issuer").empty() || field(record, "audience").empty()) refuse("an issuer and an audience", "none", "Name both.");
  std::erase_if(providers, [&](const IdentityProvider& known) { return known.issuer == field(record, "issuer"); });
  providers.push_back({field(record, "issuer"), field(record, "audience"), sequence});
}

void AccessState::apply_session(const LedgerRecord& record, std::int64_t time) {
  const auto provider = std::find_if(providers.begin(), providers.end(), [&](const IdentityProvider& known) {
    return known.issuer == field(record, "issuer") && known.audience == field(record, "audience");
  });
  if (provider == providers.end()) throw Denied("unknown_issuer", "[access] Expected a token of a provider of this ledger, received another. Have an officer add the provider.");
  const Actor* known = actor(field(record, "actor"));
  if (known == nullptr || known->subject != field(record, "issuer") + "#" + field(record, "subject")) {
    throw Denied("unknown_actor", "[access] Expected a token of an actor of this ledger, received another. Have an officer add its subject.");
  }
  const std::int64_t expires = time_in(field(record, "expires"));
  if (expires <= time || expires - time > kLongestSession) throw Denied("expired", "[access] Expected a token that lasts at most twelve hours and has not expired, received another. Sign in again.");
  if (!used_tokens.insert(field(record, "token")).second) throw Denied("replayed", "[access] Expected a token that was not used before, received one that was. Sign in again.");
  PublicKey key = key_in(field(record, "key"));
  if (this->key(key.id()) != nullptr) refuse("a key of its own", "one that is known", "Make a new key.");
  sessions.push_back({known->name, std::move(key), expires});
}

}  // namespace hushgrad
