// Fixed IVs and fast key rotation, to reproduce published ciphertexts. Using an IV twice breaks AES-GCM
// completely, so this lives in the tests: the library only names it a friend and holds no such function.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "dpcore/sealed/floe.h"

namespace hushgrad {

struct InsecureFloeForTests {
  static Floe start_encryption_with_fixed_iv(std::span<const std::byte> key,
                                             std::span<const std::byte> associated_data,
                                             std::uint32_t segment_bytes, std::span<const std::byte> iv) {
    return Floe(key, associated_data, segment_bytes, iv);
  }
  static void encrypt_segment_with_fixed_iv(const Floe& floe, std::uint64_t position, bool is_final,
                                            std::span<const std::byte> iv,
                                            std::span<const std::byte> plaintext,
                                            std::span<std::byte> segment) {
    floe.encrypt_segment_with_iv(position, is_final, iv, plaintext, segment);
  }
  static void rotate_keys_every(Floe& floe, unsigned bits) { floe.rotation_bits_ = bits; }
  static std::vector<std::byte> segment_key(const Floe& floe, std::uint64_t position) {
    const SecretBytes key = floe.segment_key(position);
    return {key.bytes().begin(), key.bytes().end()};
  }
};

}  // namespace hushgrad
