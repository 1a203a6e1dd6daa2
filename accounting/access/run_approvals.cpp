#include "accounting/access/run_approvals.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "accounting/access/digest.h"
#include "dpcore/error.h"

namespace hushgrad {
namespace {

constexpr std::size_t kMostBytes = 1 << 20;  // far more than either can hold

bool is_approval(const std::string& text) {
  const auto object = nlohmann::json::parse(text, nullptr, false);
  return object.is_object() && object.contains("signature");
}

std::string quoted(const std::map<std::string, std::string>& scope) {
  std::string text;
  for (const auto& [key, value] : scope) text += (text.empty() ? "" : ", ") + key + " '" + value + "'";
  return text;
}

std::string how_to_ask(const std::map<std::string, std::string>& scope) {
  return message("Ask for this run: hushgrad approve request train dataset='", scope.at("dataset"), "' purpose='", scope.at("purpose"),
                 "' --reason ... --identity KEY.");
}

void check_request(const Operation& operation, const std::map<std::string, std::string>& scope, const std::string& requester) {
  if (operation.action != "train") {
    throw InvalidArgument(message("[approvals] Expected a request to train, received one to ", operation.action,
                                  ", which is carried out by hushgrad approve apply. ", how_to_ask(scope)));
  }
  if (operation.scope != scope) {
    throw InvalidArgument(message("[approvals] Expected a request for ", quoted(scope), ", as this run is, received one for ",
                                  quoted(operation.scope), ". ", how_to_ask(scope)));
  }
  if (operation.requester == requester) return;
  throw InvalidArgument(message("[approvals] Expected a request by the key that trains (", requester, "), received one by key ",
                                operation.requester, ". Approvals cannot be passed on: train with that key, or ask with this one. ",
                                how_to_ask(scope)));
}

struct File {
  int descriptor;
  ~File() { if (descriptor >= 0) close(descriptor); }
};

[[noreturn]] void unreadable(const std::string& path) {
  throw IoError(message("[approvals] Expected a readable request or approval at '", path, "', received: ", std::strerror(errno), "."));
}

}  // namespace

std::map<std::string, std::string> run_scope(const std::string& dataset, const std::string& purpose) {
  return {{"dataset", dataset}, {"purpose", purpose}};
}

std::vector<std::pair<Operation, std::vector<Approval>>> approvals_of_run(const std::vector<std::string>& texts, const std::string& dataset,
                                                                          const std::string& purpose, const std::string& requester) {
  const auto scope = run_scope(dataset, purpose);
  std::vector<std::pair<Operation, std::vector<Approval>>> pairs;
  std::vector<Approval> approvals;
  for (const std::string& text : texts) {
    if (is_approval(text)) {
      approvals.push_back(approval_from(text));
      continue;
    }
    pairs.emplace_back(operation_from(text), std::vector<Approval>{});
    check_request(pairs.back().first, scope, requester);
  }
  for (Approval& approval : approvals) {
    const auto pair = std::find_if(pairs.begin(), pairs.end(), [&](const auto& one) { return hex_digest(to_text(one.first)) == approval.operation; });
    if (pair == pairs.end()) {
      throw InvalidArgument(message("[approvals] Expected beside each approval the request that it signs, received one by key ", approval.approver,
                                    " of a request that is not there, or was edited since. Give the file of hushgrad approve request too."));
    }
    pair->second.push_back(std::move(approval));
  }
  for (const auto& [operation, signatures] : pairs) {
    if (!signatures.empty()) continue;
    throw InvalidArgument("[approvals] Expected a request with its approvals, received one that nobody signed. Have an approver sign it, hushgrad "
                          "approve sign REQUEST --identity KEY, and give that file too.");
  }
  return pairs;
}

std::string approval_file(const std::string& path) {
  if (path.find('\0') != std::string::npos) throw InvalidArgument("[approvals] Expected a path, received one with a NUL in it.");
  // Without O_NONBLOCK a named pipe would be waited for.
  const File file{open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  struct stat facts {};
  if (file.descriptor < 0 || fstat(file.descriptor, &facts) != 0) unreadable(path);
  if (!S_ISREG(facts.st_mode) || facts.st_size > static_cast<off_t>(kMostBytes)) {
    throw InvalidArgument(message("[approvals] Expected a regular file of at most 1 MiB, received '", path, "', which is ",
                                  S_ISREG(facts.st_mode) ? "larger" : "none", ". Check which file that is."));
  }
  std::string text;
  char buffer[4096];
  for (ssize_t count; (count = read(file.descriptor, buffer, sizeof buffer)) != 0;) {
    if (count < 0) unreadable(path);
    if (text.append(buffer, static_cast<std::size_t>(count)).size() > kMostBytes) {
      throw InvalidArgument(message("[approvals] Expected a file of at most 1 MiB, received '", path, "', which grows. Check which file that is."));
    }
  }
  return text;
}

}  // namespace hushgrad
