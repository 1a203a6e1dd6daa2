#include "accounting/accountants/shares.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "accounting/accountants/fft.h"
#include "dpcore/vector_clones.h"

namespace hushgrad {
namespace {

constexpr double kUlp = std::numeric_limits<double>::epsilon();
constexpr double kPi = 3.14159265358979323846;
// Rotations in a row before sines are computed afresh.
constexpr std::size_t kRotations = 32;

std::size_t wrapped(std::int64_t place, std::size_t length) {
  const auto n = static_cast<std::int64_t>(length), at = place % n;
  return static_cast<std::size_t>(at < 0 ? at + n : at);
}

// One frequency: sums of mass (1 - cos) / 2 and mass sin / 2 of full angles, from sines of half angles; then turns to the next.
HUSHGRAD_CLONES void sum_and_turn(const double* masses, double* sin, double* cos, const double* step_sin,
                                         const double* step_cos, std::size_t n, double* real, double* imaginary) {
  double re = 0, im = 0;
#pragma omp simd reduction(+ : re, im)
  for (std::size_t i = 0; i < n; ++i) {
    const double s = sin[i], c = cos[i], ms = masses[i] * s;
    re += ms * s;
    im += ms * c;
    sin[i] = s * step_cos[i] + c * step_sin[i];
    cos[i] = c * step_cos[i] - s * step_sin[i];
  }
  *real = re;
  *imaginary = im;
}

double half_angle(std::int64_t place, std::size_t frequency, std::size_t length) {
  const auto n = static_cast<std::int64_t>(length);
  std::int64_t turn = static_cast<std::int64_t>(frequency) * (place % n) % n;
  if (2 * turn > n) turn -= n;
  if (2 * turn < -n) turn += n;
  return kPi * static_cast<double>(turn) / static_cast<double>(n);
}

void set_angles(const SparseMasses& masses, std::size_t frequency, std::size_t length, std::vector<double>& sin,
                std::vector<double>& cos) {
  for (std::size_t i = 0; i < masses.places.size(); ++i) {
    const double angle = half_angle(masses.places[i], frequency, length);
    sin[i] = std::sin(angle);
    cos[i] = std::cos(angle);
  }
}

}  // namespace

std::size_t small_from(const SparseMasses& masses, double peak, std::size_t length, double limit) {
  const auto& places = masses.places;
  const auto at = static_cast<std::ptrdiff_t>(std::lower_bound(places.begin(), places.end(), 0) - places.begin());
  double total = peak, variation = 0, products = 0;
  // Outward from the peak, to both sides, as long as places are neighbours.
  for (const int side : {-1, 1}) {
    double before = peak;
    for (std::int64_t k = 1;; ++k) {
      const std::ptrdiff_t i = side > 0 ? at + k - 1 : at - k;
      if (i < 0 || i >= static_cast<std::ptrdiff_t>(places.size()) || places[static_cast<std::size_t>(i)] != side * k) break;
      const double mass = masses.masses[static_cast<std::size_t>(i)];
      total += mass;
      variation += std::abs(mass - before);
      products += mass * before;
      before = mass;
    }
    variation += before;
  }
  const std::size_t nothing = length / 2 + 1;
  const double by_parts = variation / 2 / (limit - (1 - total) - 1e-9);
  const double by_pairs = std::sqrt((1 - limit * limit) / (4 * products)) + 1e-9;
  const double sine = std::min(by_parts > 0 ? by_parts : 1, by_pairs) * (1 + 1e-9);
  if (!(sine < 1)) return nothing;
  const double frequency = std::ceil(static_cast<double>(length) * std::asin(sine) / kPi) + 1;
  return std::min(nothing, static_cast<std::size_t>(frequency));
}

Shares shares_by_transform(const SparseMasses& masses, std::size_t length) {
  std::vector<double> sequence(length, 0);
  for (std::size_t i = 0; i < masses.places.size(); ++i) sequence[wrapped(masses.places[i], length)] += masses.masses[i];
  sequence[0] = 0;  // a whole number of periods away: turns with place 0
  Shares shares{real_spectrum(sequence), {}};
  const double at_zero = shares.away[0].real();
  shares.error.assign(shares.away.size(), real_spectrum_error(sequence) + 8 * kUlp * at_zero);
  for (std::size_t j = 0; j < shares.away.size(); ++j) {
    shares.away[j] -= at_zero;
    shares.error[j] += 4 * kUlp * std::abs(shares.away[j]);
  }
  return shares;
}

Shares shares_by_sums(const SparseMasses& masses, std::size_t length, std::size_t count) {
  const std::size_t n = masses.places.size();
  Shares shares{std::vector<std::complex<double>>(count), std::vector<double>(count)};
  double total = 0, moment = 0;  // of mass, and of mass * distance from place 0
  for (std::size_t i = 0; i < n; ++i) {
    total += masses.masses[i];
    moment += masses.masses[i] * std::abs(static_cast<double>(masses.places[i]));
  }
  std::vector<double> sin(n), cos(n), step_sin(n), step_cos(n);
  set_angles(masses, 1, length, step_sin, step_cos);
  for (std::size_t j = 0; j < count; ++j) {
    if (j % kRotations == 0) set_angles(masses, j, length, sin, cos);
    double real = 0, imaginary = 0;
    sum_and_turn(masses.masses.data(), sin.data(), cos.data(), step_sin.data(), step_cos.data(), n, &real, &imaginary);
    shares.away[j] = {-2 * real, -2 * imaginary};
    // Up to kRotations rotations leave a sine right to 4 kRotations roundings of min(1, angle); then n terms are added.
    const double angle = kPi * static_cast<double>(j) / static_cast<double>(length);
    shares.error[j] = (16.0 * kRotations + 4 * static_cast<double>(n)) * kUlp * std::min(total, angle * moment);
  }
  return shares;
}

}  // namespace hushgrad
