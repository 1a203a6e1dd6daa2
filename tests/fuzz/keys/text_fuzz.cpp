// libFuzzer target for every text of dpcore/keys that comes from somebody else: requests, approvals, certificates, public
// keys, keyring bodies, times. Whatever comes, the answer is a value that writes itself back, or an error of the taxonomy.
// Build and run: bash tests/fuzz/keys/run.sh SECONDS
#include <cstdint>
#include <cstdlib>
#include <string>

#include "dpcore/error.h"
#include "dpcore/keys/approval.h"
#include "dpcore/keys/certificate.h"
#include "dpcore/keys/keyring_model.h"
#include "dpcore/keys/utc_time.h"

namespace {

using namespace hushgrad;

template <typename Call>
void may_refuse(const Call& call) {
  try {
    call();
  } catch (const Error&) {
  }
}

void require(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string text(reinterpret_cast<const char*>(data) + 1, size - 1);
  static const PublicKey signer = SigningKey::generate().public_key();
  switch (data[0] % 6) {
    case 0:
      may_refuse([&] { require(text.starts_with(to_text(operation_from(text)))); });
      break;
    case 1:
      may_refuse([&] { require(approval_from(to_text(approval_from(text))) == approval_from(text)); });
      break;
    case 2:
      require(!verify_certificate(text, signer));
      break;
    case 3:
      may_refuse([&] { require(PublicKey::from_pem(PublicKey::from_pem(text).pem()) == PublicKey::from_pem(text)); });
      break;
    case 4:
      may_refuse([&] { require(to_text(keyring_model_from(text)) == text); });
      break;
    default:
      if (const auto seconds = utc_seconds(text)) require(utc_text(*seconds) == text);
  }
  return 0;
}
