// What callers ask of the access rules of a ledger.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "accounting/access/role.h"
#include "dpcore/keys/signing.h"

namespace hushgrad {

struct ActorInfo {
  std::string name;
  PublicKey key;
  std::string team{};
  std::string subject{};  // "issuer#subject" of tokens that prove the same actor; empty: none
};

/// Times: "2026-01-31T12:00:00Z"; empty: from now on, without end. Patterns: `*` stands for any bytes.
struct GrantInfo {
  std::string name;
  Role role = Role::trainer;
  std::string dataset{"*"}, purpose{"*"};
  std::string starts{}, expires{};
  std::string reason{};
};

struct GlassInfo {
  Action action = Action::raise_budget;
  std::string dataset{"*"};
  std::string reason;
  std::int64_t seconds = 900;
};

/// kind: "model", "metrics" or "checkpoint". digest: of what leaves, as hex. run: its id, or empty.
struct ReleaseInfo {
  std::string kind, artifact, digest;
  std::string run{}, dataset{}, recipient{};
};

/// jwks: canonical JSON of the public keys. mfa: the claim that a second factor was used, e.g. "amr:mfa"; empty: not asked.
struct ProviderInfo {
  std::string issuer, audience, jwks, algorithms, mfa;
};

/// token: SHA-384 of it as hex; expires as in GrantInfo.
struct SessionInfo {
  std::string issuer, audience, subject, token, expires;
  PublicKey key;
};

/// What approvers are asked: see Operation.
struct Proposal {
  Action action = Action::record;
  std::map<std::string, std::string> scope;
};

}  // namespace hushgrad
