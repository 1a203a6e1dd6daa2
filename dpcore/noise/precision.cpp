#include "dpcore/noise/precision.h"

#include <algorithm>
#include <cmath>

namespace hushgrad {
namespace {

// The constants of docs/proofs/lattice_gaussian.md, section 4.
constexpr double kMeanSquare = 0x1p-71;       // above v = 2^-71.5
constexpr double kFailureOfAPair = 0x1p-960;  // u below 2^-960
constexpr double kLargestOrder = 0x1p28;      // |alpha eta| <= 1
constexpr double kUp = 1 + 0x1p-40;           // above the rounding of the formulas here

constexpr double kLikelySteps = 1e4;
constexpr double kLikelyTail = 30;  // log(1 / beta) at the usual delta

// An upper bound of sigma in grid steps, whatever the sensitivity: the grid is the largest power of two within its limits
// (choose_lattice), so at least half of the smaller limit.
double largest_sigma(double noise_multiplier, double dimension) {
  return 2 * kUp * (1 + 0x1p-13) * std::max(0x1p14 * std::sqrt(dimension) * noise_multiplier, 0x1p10);
}

// The place where the divergence of all likely steps and the tail of Markov's inequality are alike.
double suitable_order(double divergence_of_one, double largest) {
  const double balance = std::sqrt(kLikelyTail / (kLikelySteps * divergence_of_one));
  return std::exp2(std::floor(std::log2(std::clamp(balance, 2.0, largest))));
}

}  // namespace

NoisePrecision fast_noise_precision(double noise_multiplier, std::span<const std::size_t> part_sizes) {
  double pairs = 0, dimension = 0;
  for (std::size_t size : part_sizes) {
    pairs += static_cast<double>(size / 2 + size % 2);
    dimension += static_cast<double>(size);
  }
  if (!(noise_multiplier > 0) || pairs == 0) return {};
  // Above 2^30 grid steps the dither stops growing.
  const double coarser = std::max(1.0, largest_sigma(noise_multiplier, dimension) * 0x1p-30);
  const double divergence_of_one = 1.36 * pairs * kMeanSquare * coarser * coarser * kUp;
  const double largest = kLargestOrder / coarser;
  if (!(largest >= 2)) return {2, 0, 1};  // nothing is proven of such noise
  const double order = suitable_order(divergence_of_one, largest);
  return {order, divergence_of_one * order * kUp, pairs * kFailureOfAPair};
}

}  // namespace hushgrad
