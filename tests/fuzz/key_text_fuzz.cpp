// Small texts of keys that come from somebody else: certificates, public keys, keyring bodies, times; the first byte says
// which. The answer is a value that writes itself back, or an error of the taxonomy.
#include "dpcore/keys/certificate.h"
#include "dpcore/keys/keyring_model.h"
#include "dpcore/keys/utc_time.h"
#include "fuzz/fuzzing.h"

using namespace hushgrad;
using fuzzing::demand;
using fuzzing::guarded;

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string text(reinterpret_cast<const char*>(data) + 1, size - 1);
  static const PublicKey signer = SigningKey::generate().public_key();
  switch (data[0] % 4) {
    case 0:
      demand(!verify_certificate(text, signer));
      break;
    case 1:
      guarded([&] { demand(PublicKey::from_pem(PublicKey::from_pem(text).pem()) == PublicKey::from_pem(text)); });
      break;
    case 2:
      guarded([&] { demand(to_text(keyring_model_from(text)) == text); });
      break;
    default:
      if (const auto seconds = utc_seconds(text)) demand(utc_text(*seconds) == text);
  }
  return 0;
}
