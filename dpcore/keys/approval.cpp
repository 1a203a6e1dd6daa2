#include "dpcore/keys/approval.h"

#include <algorithm>
#include <array>
#include <string_view>

#include <nlohmann/json.hpp>

#include "dpcore/error.h"
#include "dpcore/keys/bytes.h"
#include "dpcore/keys/kdf.h"
#include "dpcore/keys/names.h"
#include "dpcore/keys/utc_time.h"

namespace hushgrad {
namespace {

using nlohmann::json;

constexpr std::string_view kOperationFormat = "hushgrad operation 1";
constexpr std::string_view kApprovalFormat = "hushgrad approval 1";
constexpr const char* kContext = "approval";
constexpr std::int64_t kMaxLifetime = 30 * 24 * 3600;
constexpr std::int64_t kClockSkew = 300;
constexpr std::size_t kIdBytes = 16, kMaxScope = 32, kMaxText = 1024, kMaxFile = 128 * 1024;

[[noreturn]] void refuse(const std::string& where, const std::string& expected) {
  throw InvalidArgument(message("[", where, "] Expected ", expected,
                                ", received something else. Use the file as it was written, unedited."));
}

bool is_name(std::string_view text) {
  return !text.empty() && text.size() <= 64 && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
  });
}

void check(const Operation& operation) {
  const auto expect = [](bool holds, const char* what) {
    if (!holds) refuse("operation", what);
  };
  expect(is_name(operation.action), "an action of 1..64 characters of a-z, 0-9, \"-_.\"");
  expect(operation.scope.size() <= kMaxScope, "at most 32 entries of scope");
  for (const auto& [name, value] : operation.scope) {
    expect(is_name(name) && (value.empty() || is_line(value, kMaxText)), "scope in plain names and lines of text");
  }
  expect(is_line(operation.reason, kMaxText), "a reason of 1..1024 bytes of UTF-8 without control characters");
  expect(is_hex(operation.requester, kIdBytes), "a requester's key id");
  expect(is_hex(operation.nonce, kIdBytes), "a nonce of 32 hexadecimal digits");
  expect(operation.created >= 0 && operation.expires > operation.created &&
             operation.expires - operation.created <= kMaxLifetime,
         "an expiry after the creation, by 30 days at most");
}

// Parses one object that holds exactly the given fields; depth and numbers cannot come in through them.
json parse(const std::string& where, const std::string& text, std::initializer_list<const char*> fields) {
  if (text.size() > kMaxFile) refuse(where, "at most 128 KiB");
  json object = json::parse(text, nullptr, false);
  if (!object.is_object() || object.size() != fields.size()) refuse(where, "one JSON object with its fields");
  for (const char* field : fields) {
    if (!object.contains(field)) refuse(where, message("a field ", field));
  }
  return object;
}

std::string string_in(const std::string& where, const json& object, const char* field) {
  const json& value = object.at(field);
  if (!value.is_string()) refuse(where, message("text in ", field));
  return value.get<std::string>();
}

std::int64_t time_in(const json& object, const char* field) {
  const auto seconds = utc_seconds(string_in("operation", object, field));
  if (!seconds) refuse("operation", message("a time such as 2026-01-31T12:00:00Z in ", field));
  return *seconds;
}

std::string_view without_end(std::string_view text) {
  while (!text.empty() && std::string_view(" \t\r\n").find(text.back()) != std::string_view::npos) {
    text.remove_suffix(1);
  }
  return text;
}

std::string digest(const std::string& text) { return to_hex(sha384(text_bytes(text))); }

[[noreturn]] void deny(const char* reason, const std::string& text) {
  throw Denied(reason, message("[approval] ", text));
}

void check_time(const Operation& operation, std::int64_t now) {
  if (now >= operation.expires) {
    deny("expired", message("Expected an operation before it expires at ", utc_text(operation.expires),
                            ", received it later. Ask anew."));
  }
  if (operation.created > now + kClockSkew) {
    deny("expired", message("Expected an operation that was asked for before now, received one of ",
                            utc_text(operation.created), ". Check the clocks."));
  }
}

void check_one(const Operation& operation, const std::string& text, const Approval& approval,
               const ApprovalRules& rules) {
  if (approval.operation != digest(text)) {
    deny("altered", message("Expected an approval of this very operation, received one by ", approval.approver,
                            " of another. Action, scope, reason, times and nonce must be those that were approved."));
  }
  if (approval.approver == operation.requester) {
    deny("self_approval", "Expected approvals by others, received one by the requester. Ask somebody else.");
  }
  const auto known = std::find_if(rules.approvers.begin(), rules.approvers.end(),
                                  [&](const PublicKey& key) { return key.id() == approval.approver; });
  if (known == rules.approvers.end()) {
    deny("unknown_approver", message("Expected approvals by keys that may approve, received one by ", approval.approver,
                                     ", which may not or no longer. Ask a present approver."));
  }
  if (!known->verify(kContext, text_bytes(text), approval.signature)) {
    deny("altered", message("Expected a signature of ", approval.approver,
                            " over this operation, received one that does not fit. Ask for a new approval."));
  }
}

}  // namespace

Operation make_operation(const std::string& action, const std::map<std::string, std::string>& scope,
                         const std::string& reason, const std::string& requester, std::int64_t lifetime) {
  std::array<std::byte, kIdBytes> nonce;
  fill_random(nonce);
  const std::int64_t now = utc_now();
  if (lifetime < 1 || lifetime > kMaxLifetime) refuse("operation", "a lifetime of 1 second to 30 days");
  Operation operation{action, scope, reason, requester, to_hex(nonce), now, now + lifetime};
  check(operation);
  return operation;
}

std::string to_text(const Operation& operation) {
  check(operation);
  // Names are ASCII and values hold no numbers: sorted keys and dump() are RFC 8785 here.
  return json{{"format", kOperationFormat},
              {"action", operation.action},
              {"scope", operation.scope},
              {"reason", operation.reason},
              {"requester", operation.requester},
              {"nonce", operation.nonce},
              {"created", utc_text(operation.created)},
              {"expires", utc_text(operation.expires)}}
      .dump();
}

Operation operation_from(const std::string& text) {
  const json object = parse("operation", text,
                            {"format", "action", "scope", "reason", "requester", "nonce", "created", "expires"});
  const auto field = [&](const char* name) { return string_in("operation", object, name); };
  if (field("format") != kOperationFormat) refuse("operation", "format \"hushgrad operation 1\"");
  Operation operation{field("action"), {}, field("reason"), field("requester"), field("nonce"),
                      time_in(object, "created"), time_in(object, "expires")};
  const json& scope = object["scope"];
  if (!scope.is_object()) refuse("operation", "an object in scope");
  for (const auto& [name, value] : scope.items()) operation.scope[name] = string_in("operation", scope, name.c_str());
  // What people read is what they sign: no second spelling, no field given twice.
  if (to_text(operation) != without_end(text)) refuse("operation", "canonical JSON");
  return operation;
}

Approval approve(const Operation& operation, const SigningKey& approver) {
  const std::string text = to_text(operation);
  return {approver.public_key().id(), digest(text), approver.sign(kContext, text_bytes(text))};
}

std::string to_text(const Approval& approval) {
  return json{{"format", kApprovalFormat},
              {"approver", approval.approver},
              {"operation", approval.operation},
              {"signature", to_hex(approval.signature)}}
      .dump();
}

Approval approval_from(const std::string& text) {
  const json object = parse("approval", text, {"format", "approver", "operation", "signature"});
  const auto field = [&](const char* name) { return string_in("approval", object, name); };
  const std::string digits = field("signature");
  if (field("format") != kApprovalFormat || !is_hex(field("approver"), kIdBytes) ||
      !is_hex(field("operation"), sizeof(Sha384)) || digits.size() > 512 || !is_hex(digits, digits.size() / 2)) {
    refuse("approval", "format \"hushgrad approval 1\", an approver, an operation and a signature in hexadecimal");
  }
  std::vector<std::byte> signature(digits.size() / 2);
  from_hex(digits, signature);
  return {field("approver"), field("operation"), signature};
}

std::vector<std::string> check_approvals(const Operation& operation, std::span<const Approval> approvals,
                                         const ApprovalRules& rules) {
  const std::string text = to_text(operation);
  if (rules.quorum < 1) refuse("approval", "a quorum of at least 1");
  check_time(operation, rules.now);
  if (rules.used_nonces.contains(operation.nonce)) {
    deny("replayed", "Expected an operation that was not done yet, received one that was. Ask anew.");
  }
  std::set<std::string> approvers;
  for (const Approval& approval : approvals) {
    check_one(operation, text, approval, rules);
    if (!approvers.insert(approval.approver).second) {
      deny("duplicate_approver", message("Expected each approver once, received ", approval.approver, " twice."));
    }
  }
  if (approvers.size() < static_cast<std::size_t>(rules.quorum)) {
    deny("too_few", message("Expected ", rules.quorum, " approvals, received ", approvers.size(),
                            ". Ask more approvers before ", utc_text(operation.expires), "."));
  }
  return {approvers.begin(), approvers.end()};
}

void check_scope(const Operation& operation, const std::string& action,
                 const std::map<std::string, std::string>& scope, const std::string& requester) {
  if (operation.action == action && operation.scope == scope && operation.requester == requester) return;
  deny("altered", message("Expected an operation that asks for ", action,
                          " with this scope by this requester, received another. Ask for what is to be done."));
}

}  // namespace hushgrad
