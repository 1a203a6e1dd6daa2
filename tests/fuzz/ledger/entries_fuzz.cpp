// An export of somebody: lines of "kind payload", hashed as they should be, so that only what they say can be wrong. Each is
// applied or refused with words, before and after access rules; nothing else may happen.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "accounting/ledger/payload.h"
#include "accounting/ledger/state.h"
#include "dpcore/error.h"
#include "dpcore/keys/signing.h"

using namespace hushgrad;
using namespace hushgrad::ledger;

namespace {

std::string append(State& state, const std::string& kind, const std::string& payload) {
  Entry entry{state.sequence + 1, state.time + 1, kind, payload, state.hash, {}};
  entry.hash = entry_hash(entry);
  return state.apply(entry);
}

void apply_lines(State state, const std::string& text) {
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    const std::string line = text.substr(at, end - at);
    const std::size_t space = std::min(line.find(' '), line.size());
    const std::int64_t before = state.sequence;
    const std::string fault = append(state, line.substr(0, space), line.substr(std::min(space + 1, line.size())));
    if (!fault.empty()) return;
    if (state.sequence != before + 1) std::abort();
    at = end + 1;
  }
}

State with_rules(State state) {
  static const SigningKey key = SigningKey::generate();
  const LedgerRecord actor{"actor", {{"actor", "o"}, {"key", key_line(key.public_key())}, {"name", "o"}, {"subject", ""}, {"team", ""}}};
  const LedgerRecord grant{"grant",
                           {{"actor", "o"}, {"dataset", "*"}, {"expires", ""}, {"name", "o"}, {"purpose", "*"}, {"reason", ""},
                            {"role", "privacy_officer"}, {"starts", ""}}};
  if (!append(state, "actor", encode(actor)).empty() || !append(state, "grant", encode(grant)).empty()) std::abort();
  return state;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const State begin = [] {
    State state;
    if (!append(state, "genesis", encode(GenesisPayload{std::string(32, 'a'), 3})).empty()) std::abort();
    return state;
  }();
  static const State ruled = with_rules(begin);
  const std::string text(reinterpret_cast<const char*>(data), size);
  apply_lines(begin, text);
  apply_lines(ruled, text);
  return 0;
}
