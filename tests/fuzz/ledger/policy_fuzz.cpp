// A policy is read or refused with a typed error; one that is read means the same when it is read again.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "accounting/access/policy.h"
#include "accounting/ledger/payload.h"
#include "dpcore/error.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  try {
    const hushgrad::Policy policy = hushgrad::parse_policy(text);
    const std::string canonical = hushgrad::ledger::canonical_plan(text);
    const hushgrad::Policy again = hushgrad::parse_policy(canonical);
    if (again.version != policy.version || again.rules.size() != policy.rules.size()) std::abort();
    if (hushgrad::ledger::canonical_plan(canonical) != canonical) std::abort();
  } catch (const hushgrad::Error&) {
  }
  return 0;
}
