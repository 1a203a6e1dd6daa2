// Requests and approvals: what is read back is written as it was.
#include "dpcore/keys/approval.h"
#include "fuzz/fuzzing.h"

using namespace hushgrad;

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto trimmed = [&] { return text.substr(0, text.find_last_not_of(" \t\r\n") + 1); };
  fuzzing::guarded([&] { fuzzing::demand(to_text(operation_from(text)) == trimmed()); });
  fuzzing::guarded([&] { to_text(approval_from(text)); });
  return 0;
}
