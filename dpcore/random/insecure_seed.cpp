#include "dpcore/random/insecure_seed.h"

#include <array>
#include <cstring>
#include <string_view>

namespace hushgrad {
namespace {

std::array<std::byte, CtrDrbg::kEntropyBytes> spread(std::uint64_t seed) {
  constexpr std::string_view label = "hushgrad insecure seed";
  std::array<std::byte, CtrDrbg::kEntropyBytes> entropy{};
  std::memcpy(entropy.data(), label.data(), label.size());
  for (std::size_t i = 0; i < 8; ++i) entropy[40 + i] = static_cast<std::byte>(seed >> (8 * i));
  return entropy;
}

}  // namespace

InsecureSeed::InsecureSeed(std::uint64_t seed) : stream_(spread(seed), Csprng::Origin::insecure_seed) {}

}  // namespace hushgrad
