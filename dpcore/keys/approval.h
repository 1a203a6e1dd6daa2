// Approvals by people: an operation in words that cannot be bent, and signatures over exactly these words.
// Format: docs/formats/approval.md.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "dpcore/keys/signing.h"

namespace hushgrad {

/// What somebody asks to be allowed, once.
struct Operation {
  std::string action;                        // 1..64 characters of a-z, 0-9, "-_."
  std::map<std::string, std::string> scope;  // at most 32; names as action; values 0..1024 bytes of UTF-8
  std::string reason;                        // 1..1024 bytes of UTF-8; no control characters, here and in scope
  std::string requester;                     // id of the key of whoever asks and will do it (PublicKey::id)
  std::string nonce;                         // 32 lower-case hexadecimal digits, random: an operation is done once
  std::int64_t created = 0;                  // seconds since 1970, UTC
  std::int64_t expires = 0;                  // later than created, by 30 days at most

  bool operator==(const Operation&) const = default;
};

/// A new operation with a random nonce, from now for `lifetime` seconds (1..30 days). InvalidArgument.
Operation make_operation(const std::string& action, const std::map<std::string, std::string>& scope,
                         const std::string& reason, const std::string& requester, std::int64_t lifetime);

/// The canonical JSON (RFC 8785) of an operation: the request as it is passed around, and what approvers sign.
/// InvalidArgument for fields outside their domain.
std::string to_text(const Operation& operation);
/// InvalidArgument for anything but a text that to_text() writes; white space at its end is forgiven.
Operation operation_from(const std::string& text);

struct Approval {
  std::string approver;              // id of the key that signed
  std::string operation;             // SHA-384 of the operation's text, 96 hexadecimal digits
  std::vector<std::byte> signature;  // context "approval" over the operation's text

  bool operator==(const Approval&) const = default;
};

Approval approve(const Operation& operation, const SigningKey& approver);
std::string to_text(const Approval& approval);
/// InvalidArgument when malformed.
Approval approval_from(const std::string& text);

struct ApprovalRules {
  std::vector<PublicKey> approvers;   // who may approve at this moment; whoever left is not among them
  int quorum = 1;                     // how many of them must; >= 1
  std::int64_t now = 0;               // seconds since 1970: the largest time ever seen, not the clock alone
  std::set<std::string> used_nonces;  // of operations that were done
};

/// Returns the ids of the approvers, sorted, when `approvals` allow `operation`; otherwise throws Denied. Its reason():
///   expired             at or after `expires`, or created more than five minutes after `now`
///   replayed            the nonce is among used_nonces
///   altered             an approval is of another operation, or its signature does not fit these words
///   self_approval       the requester approved
///   unknown_approver    a key that is not among the approvers, never or no longer
///   duplicate_approver  one approver twice
///   too_few             fewer than quorum
/// One bad approval denies the whole, however many good ones stand beside it. InvalidArgument for a quorum below 1 or
/// fields outside their domain.
std::vector<std::string> check_approvals(const Operation& operation, std::span<const Approval> approvals,
                                         const ApprovalRules& rules);

/// Throws Denied (altered) unless `operation` is exactly this action on exactly this scope, asked for by `requester`.
void check_scope(const Operation& operation, const std::string& action,
                 const std::map<std::string, std::string>& scope, const std::string& requester);

}  // namespace hushgrad
