// The approvals that a trainer brings along for a run.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "dpcore/keys/approval.h"

namespace hushgrad {

/// What a run asks people to approve: the action "train" on exactly this dataset for this purpose, once.
std::map<std::string, std::string> run_scope(const std::string& dataset, const std::string& purpose);

/// Pairs requests with the approvals of them. `texts`: both, in any order, as to_text() writes them.
/// Throws InvalidArgument, and says what to do, for a text that is neither, a request without an approval, an approval
/// without its request, and a request that is not for run_scope(dataset, purpose) by the key `requester`. Whether the
/// approvals hold is decided when the run begins.
std::vector<std::pair<Operation, std::vector<Approval>>> approvals_of_run(const std::vector<std::string>& texts, const std::string& dataset,
                                                                          const std::string& purpose, const std::string& requester);

/// The text of a request or an approval. Throws IoError when it cannot be read, InvalidArgument for what is no regular
/// file and for more than 1 MiB.
std::string approval_file(const std::string& path);

}  // namespace hushgrad
