#include "dpcore/sampling/geometric.h"

#include <algorithm>

namespace hushgrad {
namespace internal {
namespace {

using Wide = unsigned __int128;

// a * b in units of 2^(-64 L), rounded down, or up. Both are below one, so neither rounding reaches it.
template <std::size_t L>
Fixed<L> product(const Fixed<L>& a, const Fixed<L>& b, bool up) {
  std::array<std::uint64_t, 2 * L> full{};
  for (std::size_t i = 0; i < L; ++i) {
    std::uint64_t carry = 0;
    for (std::size_t j = 0; j < L; ++j) {
      const Wide sum = Wide{a[i]} * b[j] + full[i + j] + carry;
      full[i + j] = static_cast<std::uint64_t>(sum);
      carry = static_cast<std::uint64_t>(sum >> 64);
    }
    full[i + L] = carry;
  }
  Fixed<L> high;
  std::uint64_t lost = 0;
  for (std::size_t i = 0; i < L; ++i) {
    lost |= full[i];
    high[i] = full[L + i];
  }
  if (!up || lost == 0) return high;
  for (std::size_t i = 0; i < L && ++high[i] == 0; ++i) {
  }
  return high;
}

template <std::size_t L>
Enclosure<L> product(const Enclosure<L>& a, const Enclosure<L>& b) {
  return {product<L>(a.lower, b.lower, false), product<L>(a.upper, b.upper, true)};
}

template <std::size_t L>
bool below(const Fixed<L>& a, const Fixed<L>& b) {
  return std::lexicographical_compare(a.rbegin(), a.rend(), b.rbegin(), b.rend());
}

// 1 - rate by long division. At most 1 - 2^-62, so rounding up stays below one.
template <std::size_t L>
Enclosure<L> failure(const SamplingRate& rate) {
  const auto denominator = static_cast<std::uint64_t>(rate.denominator());
  Wide rest = denominator - static_cast<std::uint64_t>(rate.numerator());
  Enclosure<L> result;
  for (std::size_t i = L; i-- > 0;) {
    result.lower[i] = static_cast<std::uint64_t>((rest << 64) / denominator);
    rest = (rest << 64) % denominator;
  }
  result.upper = result.lower;
  if (rest != 0) {
    for (std::size_t i = 0; i < L && ++result.upper[i] == 0; ++i) {
    }
  }
  return result;
}

}  // namespace

template <std::size_t L>
Powers<L> powers_of_failure(const SamplingRate& rate) {
  Powers<L> powers;
  powers[0] = failure<L>(rate);
  for (std::size_t j = 1; j < powers.size(); ++j) powers[j] = product(powers[j - 1], powers[j - 1]);
  return powers;
}

template <std::size_t L>
std::optional<std::int64_t> last_power_above(const Fixed<L>& u, const Powers<L>& powers, int log2_limit) {
  std::int64_t g = 0;
  Enclosure<L> reached{};
  for (int j = log2_limit; j >= 0; --j) {
    const Enclosure<L> next = g == 0 ? powers[static_cast<std::size_t>(j)] : product(reached, powers[static_cast<std::size_t>(j)]);
    if (!below<L>(u, next.upper)) continue;           // u >= the power: too far
    if (!below<L>(u, next.lower)) return std::nullopt;  // u's last place straddles it
    reached = next;
    g += std::int64_t{1} << j;
  }
  return g;
}

template Powers<1> powers_of_failure<1>(const SamplingRate&);
template Powers<2> powers_of_failure<2>(const SamplingRate&);
template Powers<4> powers_of_failure<4>(const SamplingRate&);
template Powers<8> powers_of_failure<8>(const SamplingRate&);
template Powers<16> powers_of_failure<16>(const SamplingRate&);
template std::optional<std::int64_t> last_power_above<1>(const Fixed<1>&, const Powers<1>&, int);
template std::optional<std::int64_t> last_power_above<2>(const Fixed<2>&, const Powers<2>&, int);
template std::optional<std::int64_t> last_power_above<4>(const Fixed<4>&, const Powers<4>&, int);
template std::optional<std::int64_t> last_power_above<8>(const Fixed<8>&, const Powers<8>&, int);
template std::optional<std::int64_t> last_power_above<16>(const Fixed<16>&, const Powers<16>&, int);

}  // namespace internal

namespace {

// Squaring doubles the relative error: sixty-two times in four words leave one word exact.
internal::Powers<1> one_word(const internal::Powers<4>& powers) {
  internal::Powers<1> rounded;
  for (std::size_t j = 0; j < powers.size(); ++j) {
    const auto& [lower, upper] = powers[j];
    const bool exact = upper[0] == 0 && upper[1] == 0 && upper[2] == 0;
    rounded[j] = {{lower[3]}, {upper[3] + (exact ? 0 : 1)}};
  }
  return rounded;
}

}  // namespace

Geometric::Geometric(const SamplingRate& rate) : rate_(rate), always_(rate.numerator() == rate.denominator()) {
  if (!always_) powers_ = one_word(internal::powers_of_failure<4>(rate));
}

}  // namespace hushgrad
