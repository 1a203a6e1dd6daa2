// Exact draws from random words, in integers only. `Words` is anything that returns independent uniform 64-bit words,
// such as WordStream; each function takes as many as it needs, so running time depends on what is drawn.
#pragma once

#include <cstdint>

namespace hushgrad {

/// True with probability numerator / denominator, exactly: the words are the digits of a uniform number, compared digit by
/// digit with those of the fraction. denominator >= 1; numerator <= denominator.
template <typename Words>
bool bernoulli(Words& words, std::uint64_t numerator, std::uint64_t denominator) {
  if (numerator >= denominator) return true;
  unsigned __int128 rest = numerator;
  while (rest != 0) {
    const unsigned __int128 shifted = rest << 64;
    const auto digit = static_cast<std::uint64_t>(shifted / denominator);
    const std::uint64_t word = words();
    if (word != digit) return word < digit;
    rest = shifted % denominator;
  }
  return false;
}

/// Uniform on 0 ... bound - 1, bound >= 1. Lemire (2019), "Fast random integer generation in an interval": the low half of
/// the product tells the few words to reject.
template <typename Words>
std::uint64_t uniform_below(Words& words, std::uint64_t bound) {
  unsigned __int128 product = static_cast<unsigned __int128>(words()) * bound;
  if (static_cast<std::uint64_t>(product) < bound) {
    const std::uint64_t rejected = (0 - bound) % bound;  // 2^64 mod bound
    while (static_cast<std::uint64_t>(product) < rejected) product = static_cast<unsigned __int128>(words()) * bound;
  }
  return static_cast<std::uint64_t>(product >> 64);
}

}  // namespace hushgrad
