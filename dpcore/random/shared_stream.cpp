#include "dpcore/random/shared_stream.h"

#include <algorithm>

#include "dpcore/error.h"

namespace hushgrad {

SharedKey SharedKey::received(std::span<const std::byte> bytes) {
  if (bytes.size() != kBytes) {
    throw InvalidArgument(message("[random] Expected a shared key of ", kBytes, " bytes, received ", bytes.size(), "."));
  }
  SharedKey key;
  std::copy(bytes.begin(), bytes.end(), key.bytes_.begin());
  return key;
}

SharedKey::~SharedKey() { wipe(bytes_); }

}  // namespace hushgrad
