// The inner loops of the lattice Gaussian: random words -> integers -> noisy float32. Plain arithmetic
// without branches on data or noise, so that compilers vectorise it and the running time is the same for
// every value.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace hushgrad::internal {

/// Random 64-bit words that one pair of noise values uses up: 92 bits of radius, 52 of angle, 2 x 24 of
/// dither.
inline constexpr std::size_t kWordsPerPair = 3;

/// sigma in grid units above which double precision no longer places a value to a fraction of a step.
inline constexpr double kMaxSigmaUnits = 0x1p46;

/// A sum this many grid steps long was not clipped: sensitivities stay below 2^42 steps, batches below 2^58
/// records.
inline constexpr double kMaxSumUnits = 0x1p100;

/// The loops, compiled for one kind of processor.
struct GaussianKernel {
  const char* name;

  /// Pairs of standard normals times `sigma`, by Box and Muller (1958), of a radius variable in steps of
  /// 2^-92 and an angle in steps of 2^-52 turns. Reaches 11.3 standard deviations. A value is within sigma *
  /// 2^-50 * (R + 1/R) of the exact function of its words at radius R, and within sigma * 2^-25 at R below
  /// 2^-25. words: [3][pairs]; first, second: [pairs].
  void (*pairs)(const std::uint64_t* words, std::size_t pairs, double sigma, double* first, double* second);

  /// Integers n = round(x + shift) + w held exactly in doubles: x the scaled normals above, w uniform on the
  /// integers
  /// [-width / 2, width / 2) with width = dither_width(sigma_units), and shift = 1/2 to centre n if width
  /// > 1. The dither smooths the mass of every single integer although x is a double; being independent noise
  /// of its own it is post-processing and takes nothing from the guarantee. words: [3][pairs]; noise:
  /// [2][pairs].
  void (*noise)(const std::uint64_t* words, std::size_t pairs, double sigma_units, double* noise);

  /// values[i] = float32((round(values[i] / grid) + noise[i]) * grid * scale) for i < count.
  /// False if an input is not finite or reaches kMaxSumUnits steps, or an output is not finite; the values
  /// then mean nothing.
  bool (*add)(float* values, const double* noise, std::size_t count, double grid, double scale);
};

/// The fastest kernel that this processor runs.
const GaussianKernel& gaussian_kernel();
/// All that this processor runs, the fastest first; the last needs nothing beyond the architecture's base instructions. On
/// x86-64: AVX-512, AVX2 with FMA, base.
std::vector<const GaussianKernel*> gaussian_kernels();

/// (k + 1/2) / 2^92 for the 92-bit k = (high, top 28 bits of low), the radius variable of a pair.
double radius_variable(std::uint64_t high, std::uint64_t low);

/// One pair as GaussianKernel::noise makes it, of any radius variable u in [2^-1000, 1] in place of the words' own: low and last are
/// the second and third word.
void noise_of_radius(double u, std::uint64_t low, std::uint64_t last, double sigma_units, double* first, double* second);

/// The power of two in (sigma_units / 128, sigma_units / 64], at most 2^24; 1 (no dither) for sigma_units <
/// 128.
double dither_width(double sigma_units);

/// values[i] = float32(values[i] * scale). False if an input or an output is not finite.
bool scale_only(float* values, std::size_t count, double scale);

}  // namespace hushgrad::internal
