#include "dpcore/random/ctr_drbg.h"

#include <array>

#include "dpcore/error.h"

namespace hushgrad {
namespace {

constexpr std::size_t kBlock = 16;
constexpr std::array<std::byte, 32> kZeroKey{};
constexpr std::array<std::byte, CtrDrbg::kEntropyBytes> kNoInput{};

using Block = std::array<std::byte, kBlock>;

constexpr Block kOne = [] {
  Block block{};
  block.back() = std::byte{1};
  return block;
}();

// V + 1 mod 2^128: the standard increments V before each block, AesCtr after it.
Block incremented(std::span<const std::byte, kBlock> v) {
  Block next;
  unsigned carry = 1;
  for (std::size_t i = kBlock; i-- > 0;) {
    carry += std::to_integer<unsigned>(v[i]);
    next[i] = static_cast<std::byte>(carry & 0xff);
    carry >>= 8;
  }
  return next;
}

}  // namespace

CtrDrbg::CtrDrbg(Entropy entropy) : stream_(kZeroKey, kOne) { update(entropy); }

void CtrDrbg::reseed(Entropy entropy) { update(entropy); }

void CtrDrbg::generate(std::span<std::byte> out) {
  if (out.size() > kMaxRequestBytes) {
    throw InvalidArgument(message("[random] Expected a request of at most ", kMaxRequestBytes,
                                  " bytes, received ", out.size(), ". Split it."));
  }
  stream_.fill(out);
  if (const std::size_t tail = out.size() % kBlock; tail != 0) {
    Block unused;  // the standard throws away the rest of the last block
    stream_.fill(std::span(unused).first(kBlock - tail));
    wipe(unused);
  }
  update(kNoInput);
}

void CtrDrbg::update(Entropy provided) {
  std::array<std::byte, kEntropyBytes> state;
  stream_.fill(state);
  for (std::size_t i = 0; i < state.size(); ++i) state[i] ^= provided[i];
  const std::span<const std::byte, kEntropyBytes> view(state);
  Block counter = incremented(view.last<kBlock>());
  stream_.rekey(view.first<32>(), counter);
  wipe(counter);
  wipe(state);
}

}  // namespace hushgrad
