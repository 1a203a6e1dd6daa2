#include "dpcore/noise/gaussian_kernel.h"

#include <algorithm>
#include <bit>
#include <cfloat>
#include <cmath>

#if defined(__FAST_MATH__)
#error \
    "Rounding to the grid, and refusing what is not finite, need IEEE arithmetic: build without -ffast-math."
#endif

namespace hushgrad::internal {
namespace {

#if defined(__x86_64__) && defined(__GNUC__)
#define HUSHGRAD_X86 1
#define HUSHGRAD_AVX2 __attribute__((target("avx2,fma")))
#define HUSHGRAD_AVX512 \
  __attribute__((target("avx512f,avx512dq,avx512vl,avx512bw,avx2,fma,prefer-vector-width=512")))
#endif
// Inlined into one copy for each kind of processor, so that each copy is vectorised for its own.
#define HUSHGRAD_INLINE inline __attribute__((always_inline))

constexpr double kRound =
    0x1.8p52;  // adding and subtracting it rounds |x| < 2^51 to the nearest integer, ties to even

HUSHGRAD_INLINE double from_bits(std::uint64_t bits) { return std::bit_cast<double>(bits); }
HUSHGRAD_INLINE std::uint64_t to_bits(double value) { return std::bit_cast<std::uint64_t>(value); }

// Exact for x < 2^52: the integer becomes the mantissa of a double in [2^52, 2^53).
HUSHGRAD_INLINE double to_double(std::uint64_t x) { return from_bits(x | 0x4330000000000000u) - 0x1p52; }

// (k + 1/2) / 2^92 for the 92-bit k = (high, top 28 bits of low), as 52 bits and 40. Never 0; small values
// keep their full precision.
HUSHGRAD_INLINE double uniform92(std::uint64_t high, std::uint64_t low) {
  const double coarse = to_double(high >> 12) * 0x1p-52;
  const double fine = (to_double(((high & 0xfff) << 28) | (low >> 36)) + 0.5) * 0x1p-92;
  return coarse + fine;
}

// log(u) for normal u in (0, 1]. u = m * 2^e, m in [sqrt(1/2), sqrt(2)), s = (m - 1) / (m + 1) and
// log(m) = 2 atanh(s) = 2 s + s^3 P(s^2); P is the minimax polynomial, relative error 2^-52.
HUSHGRAD_INLINE double log_unit(double u) {
  constexpr std::uint64_t sqrt_half = 0x3fe6a09e667f3bcdu;
  const std::uint64_t shifted = to_bits(u) + (0x3ff0000000000000u - sqrt_half);
  const double e = to_double(shifted >> 52) - 1023.0;
  const double m = from_bits((shifted & 0x000fffffffffffffu) + sqrt_half);
  const double s = (m - 1.0) / (m + 1.0);
  const double w = s * s;
  double p = 0.16819979549169262;
  p = p * w + 0.1812362999430079;
  p = p * w + 0.22223372053374085;
  p = p * w + 0.28571417124893494;
  p = p * w + 0.4000000005230165;
  p = p * w + 0.6666666666658716;
  return e * 0.6931471805599453 + (2.0 * s + s * w * p);
}

// Minimax on [-1/2, 1/2], errors 2^-58 and 2^-54.
HUSHGRAD_INLINE double sin_half_pi(double f) {
  const double g = f * f;
  double p = 5.633938483569299e-08;
  p = p * g - 3.598643388248772e-06;
  p = p * g + 0.00016044115075211003;
  p = p * g - 0.004681754132342262;
  p = p * g + 0.07969262624604308;
  p = p * g - 0.6459640975062443;
  p = p * g + 1.5707963267948966;
  return p * f;
}
HUSHGRAD_INLINE double cos_half_pi(double f) {
  const double g = f * f;
  double p = 4.6553012714163407e-07;
  p = p * g - 2.5200135645594586e-05;
  p = p * g + 0.0009192599501489096;
  p = p * g - 0.02086348073496047;
  p = p * g + 0.25366950789986553;
  p = p * g - 1.2337005501361513;
  return p * g + 1.0;
}

struct Pair {
  double first, second;
};

// radius * (cos, sin) of a 52-bit angle: 50 bits place it in the quarter turn around 0, one mirrors it at the
// diagonal, one at the origin; the four images of the quarter tile the circle.
HUSHGRAD_INLINE Pair on_circle(double radius, std::uint64_t low, std::uint64_t last) {
  const std::uint64_t angle = ((low & 0xfffffffffu) << 16) | (last >> 48);
  const double f = (to_double(angle & 0x3ffffffffffffu) + 0.5) * 0x1p-50 - 0.5;
  const std::uint64_t x = to_bits(cos_half_pi(f)), y = to_bits(sin_half_pi(f));
  const std::uint64_t swap = (x ^ y) & (0 - ((angle >> 50) & 1));
  const std::uint64_t sign = (angle >> 51) << 63;
  return {radius * from_bits(x ^ swap ^ sign), radius * from_bits(y ^ swap ^ sign)};
}

// (sigma * radius)^2. Its own loop, without the square root: division and square root share a slow unit, and
// short iterations overlap better.
HUSHGRAD_INLINE void squared_radii_loop(const std::uint64_t* __restrict words, std::size_t pairs,
                                        double sigma, double* __restrict out) {
  const double factor = -2.0 * sigma * sigma;
  for (std::size_t i = 0; i < pairs; ++i) out[i] = factor * log_unit(uniform92(words[i], words[pairs + i]));
}

HUSHGRAD_INLINE double round_small(double x) { return (x + kRound) - kRound; }

HUSHGRAD_INLINE void gaussian_pairs_loop(const std::uint64_t* __restrict words, std::size_t pairs,
                                         double sigma, double* __restrict first, double* __restrict second) {
  squared_radii_loop(words, pairs, sigma, first);
  for (std::size_t i = 0; i < pairs; ++i) {
    const Pair x = on_circle(__builtin_sqrt(first[i]), words[pairs + i], words[2 * pairs + i]);
    first[i] = x.first;
    second[i] = x.second;
  }
}

// Rounding to an integer, and adding one of `width` integers around 0.
struct Dither {
  HUSHGRAD_INLINE explicit Dither(double sigma_units)
      : mask(static_cast<std::uint64_t>(dither_width(sigma_units)) - 1),
        // An even number of dither values has mean -1/2: half a step the other way keeps the sum symmetric around 0.
        shift(mask > 0 ? 0.5 : 0.0),
        middle(mask > 0 ? (static_cast<double>(mask) + 1.0) * 0.5 : 0.0) {}
  HUSHGRAD_INLINE double add(double x, std::uint64_t bits) const { return round_small(x + shift) + (to_double(bits & mask) - middle); }

  std::uint64_t mask;
  double shift, middle;
};

HUSHGRAD_INLINE void lattice_noise_loop(const std::uint64_t* __restrict words, std::size_t pairs,
                                        double sigma_units, double* __restrict first,
                                        double* __restrict second) {
  const Dither dither(sigma_units);
  squared_radii_loop(words, pairs, sigma_units, first);
  for (std::size_t i = 0; i < pairs; ++i) {
    const std::uint64_t last = words[2 * pairs + i];
    const Pair x = on_circle(__builtin_sqrt(first[i]), words[pairs + i], last);
    first[i] = dither.add(x.first, last);
    second[i] = dither.add(x.second, last >> 24);
  }
}

constexpr std::int32_t kInfinityBits = 0x7f800000;

HUSHGRAD_INLINE std::int32_t magnitude_bits(float value) {
  return std::bit_cast<std::int32_t>(value) & 0x7fffffff;
}

// Bits of the first float32 magnitude that is refused: kMaxSumUnits steps, or infinity where float32 ends
// before.
std::int32_t refused_from(double grid) {
  const double limit = grid * kMaxSumUnits;
  return limit > FLT_MAX ? kInfinityBits : magnitude_bits(static_cast<float>(limit));
}

HUSHGRAD_INLINE bool add_scaled_loop(float* __restrict values, const double* __restrict noise,
                                     std::size_t count, double grid, double scale) {
  const double to_units = 1.0 / grid, from_units = grid * scale;
  const std::int32_t refused = refused_from(grid);
  std::int32_t bad = 0;
  for (std::size_t i = 0; i < count; ++i) {
    // The scaling is exact, grid being a power of two. From 2^51 steps on, a float32 is a whole number of
    // steps already and so coarse that adding kRound is exact too, up to kMaxSumUnits: round_small leaves it
    // as it is.
    const double units = round_small(static_cast<double>(values[i]) * to_units);
    const float out = static_cast<float>((units + noise[i]) * from_units);
    bad |= (magnitude_bits(values[i]) >= refused) | (magnitude_bits(out) >= kInfinityBits);
    values[i] = out;
  }
  return bad == 0;
}

// The kernel that any processor of this architecture can run.
struct Portable {
  static constexpr const char* name = "portable";
  static void pairs(const std::uint64_t* words, std::size_t count, double sigma, double* first,
                    double* second) {
    gaussian_pairs_loop(words, count, sigma, first, second);
  }
  static void noise(const std::uint64_t* words, std::size_t count, double sigma_units, double* out) {
    lattice_noise_loop(words, count, sigma_units, out, out + count);
  }
  static bool add(float* values, const double* noise, std::size_t count, double grid, double scale) {
    return add_scaled_loop(values, noise, count, grid, scale);
  }
};

#if defined(HUSHGRAD_X86)
struct Avx2 {
  static constexpr const char* name = "avx2";
  HUSHGRAD_AVX2 static void pairs(const std::uint64_t* words, std::size_t count, double sigma, double* first, double* second) {
    gaussian_pairs_loop(words, count, sigma, first, second);
  }
  HUSHGRAD_AVX2 static void noise(const std::uint64_t* words, std::size_t count, double sigma_units, double* out) {
    lattice_noise_loop(words, count, sigma_units, out, out + count);
  }
  HUSHGRAD_AVX2 static bool add(float* values, const double* noise, std::size_t count, double grid, double scale) {
    return add_scaled_loop(values, noise, count, grid, scale);
  }
};

struct Avx512 {
  static constexpr const char* name = "avx512";
  HUSHGRAD_AVX512 static void pairs(const std::uint64_t* words, std::size_t count, double sigma, double* first, double* second) {
    gaussian_pairs_loop(words, count, sigma, first, second);
  }
  HUSHGRAD_AVX512 static void noise(const std::uint64_t* words, std::size_t count, double sigma_units, double* out) {
    lattice_noise_loop(words, count, sigma_units, out, out + count);
  }
  HUSHGRAD_AVX512 static bool add(float* values, const double* noise, std::size_t count, double grid, double scale) {
    return add_scaled_loop(values, noise, count, grid, scale);
  }
};
#endif

template <typename Kind>
constexpr GaussianKernel kernel_of{Kind::name, Kind::pairs, Kind::noise, Kind::add};

}  // namespace

double radius_variable(std::uint64_t high, std::uint64_t low) { return uniform92(high, low); }

void noise_of_radius(double u, std::uint64_t low, std::uint64_t last, double sigma_units, double* first, double* second) {
  const Dither dither(sigma_units);
  const Pair x = on_circle(sigma_units * __builtin_sqrt(-2.0 * log_unit(u)), low, last);
  *first = dither.add(x.first, last);
  *second = dither.add(x.second, last >> 24);
}

double dither_width(double sigma_units) {
  if (sigma_units < 128.0) return 1.0;
  return std::min(0x1p24, std::ldexp(1.0, std::ilogb(sigma_units) - 6));
}

std::vector<const GaussianKernel*> gaussian_kernels() {
  std::vector<const GaussianKernel*> kernels;
#if defined(HUSHGRAD_X86)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw");
  if (avx2 && avx512) kernels.push_back(&kernel_of<Avx512>);
  if (avx2) kernels.push_back(&kernel_of<Avx2>);
#endif
  kernels.push_back(&kernel_of<Portable>);
  return kernels;
}

const GaussianKernel& gaussian_kernel() {
  static const GaussianKernel* const fastest = gaussian_kernels().front();
  return *fastest;
}

bool scale_only(float* values, std::size_t count, double scale) {
  std::int32_t bad = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const float out = static_cast<float>(static_cast<double>(values[i]) * scale);
    bad |= (magnitude_bits(values[i]) >= kInfinityBits) | (magnitude_bits(out) >= kInfinityBits);
    values[i] = out;
  }
  return bad == 0;
}

}  // namespace hushgrad::internal
