#include "accounting/accountants/shares.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <limits>

#include "accounting/accountants/fft.h"
#include "dpcore/vector_clones.h"

namespace hushgrad {
namespace {

constexpr double kUlp = std::numeric_limits<double>::epsilon();
constexpr double kPi = 3.14159265358979323846;
// Frequencies for which sines are kept, and terms that are added up in a row.
constexpr std::size_t kBlock = 32;
constexpr std::size_t kChunk = 64;
constexpr std::size_t kHeavy = 64;

std::size_t wrapped(std::int64_t place, std::size_t length) {
  const auto n = static_cast<std::int64_t>(length), at = place % n;
  return static_cast<std::size_t>(at < 0 ? at + n : at);
}

// Sines and cosines of the half angles of all masses, at one frequency.
struct Angles {
  explicit Angles(std::size_t n) : sin(n), cos(n) {}
  std::vector<double> sin, cos;
};

// One frequency, the sum of two: sums of mass sin^2 and mass sin cos of the half angles. In chunks, so that few roundings add up.
HUSHGRAD_CLONES void add_up(const double* masses, const Angles& a, const Angles& b, double* real, double* imaginary) {
  const double *sin_a = a.sin.data(), *cos_a = a.cos.data(), *sin_b = b.sin.data(), *cos_b = b.cos.data();
  const std::size_t n = a.sin.size();
  *real = *imaginary = 0;
  for (std::size_t from = 0; from < n; from += kChunk) {
    double re = 0, im = 0;
    const std::size_t to = std::min(n, from + kChunk);
#pragma omp simd reduction(+ : re, im)
    for (std::size_t i = from; i < to; ++i) {
      const double s = sin_a[i] * cos_b[i] + cos_a[i] * sin_b[i], c = cos_a[i] * cos_b[i] - sin_a[i] * sin_b[i];
      re += masses[i] * s * s;
      im += masses[i] * s * c;
    }
    *real += re;
    *imaginary += im;
  }
}

HUSHGRAD_CLONES void add_angles(const Angles& a, const Angles& b, Angles& sum) {
  for (std::size_t i = 0; i < a.sin.size(); ++i) {
    const double s = a.sin[i] * b.cos[i] + a.cos[i] * b.sin[i], c = a.cos[i] * b.cos[i] - a.sin[i] * b.sin[i];
    sum.sin[i] = s;
    sum.cos[i] = c;
  }
}

double half_angle(std::int64_t place, std::size_t frequency, std::size_t length) {
  const auto n = static_cast<std::int64_t>(length);
  std::int64_t turn = static_cast<std::int64_t>(frequency) * (place % n) % n;
  if (2 * turn > n) turn -= n;
  if (2 * turn < -n) turn += n;
  return kPi * static_cast<double>(turn) / static_cast<double>(n);
}

Angles angles_at(const SparseMasses& masses, std::size_t frequency, std::size_t length) {
  Angles angles(masses.places.size());
  for (std::size_t i = 0; i < masses.places.size(); ++i) {
    const double angle = half_angle(masses.places[i], frequency, length);
    angles.sin[i] = std::sin(angle);
    angles.cos[i] = std::cos(angle);
  }
  return angles;
}

// Frequencies 0 ... count - 1, each the sum of two with fewer bits: as many roundings as there are bits.
std::vector<Angles> low_frequencies(const SparseMasses& masses, std::size_t length, std::size_t count) {
  std::vector<Angles> low;
  low.push_back(angles_at(masses, 0, length));
  for (std::size_t j = 1; j < count; ++j) {
    const std::size_t highest = std::bit_floor(j);
    if (j == highest) {
      low.push_back(angles_at(masses, j, length));
      continue;
    }
    low.emplace_back(masses.places.size());
    add_angles(low[highest], low[j - highest], low[j]);
  }
  return low;
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
  const std::vector<Angles> low = low_frequencies(masses, length, std::min(count, kBlock));
  Angles block = low.empty() ? Angles(0) : low[0];
  for (std::size_t j = 0; j < count; ++j) {
    if (j > 0 && j % kBlock == 0) block = angles_at(masses, j, length);
    double real = 0, imaginary = 0;
    add_up(masses.masses.data(), block, low[j % kBlock], &real, &imaginary);
    shares.away[j] = {-2 * real, -2 * imaginary};
    // Each of at most six additions of angles leaves 16 roundings of min(1, angle); then chunks, and their sums, are added.
    const double angle = kPi * static_cast<double>(j) / static_cast<double>(length);
    shares.error[j] = (16.0 * 6 + 2.0 * kChunk + 2 * static_cast<double>(n / kChunk)) * kUlp * std::min(total, angle * moment);
  }
  return shares;
}

Shares shares_by_both(const SparseMasses& masses, std::size_t length, std::size_t count) {
  std::vector<double> sorted = masses.masses;
  const std::size_t heavy = std::min(kHeavy, sorted.size());
  if (heavy == 0) return shares_by_sums(masses, length, count);
  std::nth_element(sorted.begin(), sorted.begin() + static_cast<std::ptrdiff_t>(heavy - 1), sorted.end(), std::greater<>());
  SparseMasses summed, transformed;
  for (std::size_t i = 0; i < masses.masses.size(); ++i) {
    SparseMasses& part = masses.masses[i] >= sorted[heavy - 1] && summed.masses.size() < heavy ? summed : transformed;
    part.places.push_back(masses.places[i]);
    part.masses.push_back(masses.masses[i]);
  }
  Shares shares = shares_by_sums(summed, length, count);
  const Shares others = shares_by_transform(transformed, length);
  for (std::size_t j = 0; j < count; ++j) {
    shares.away[j] += others.away[j];
    shares.error[j] += others.error[j] + kUlp * std::abs(shares.away[j]);
  }
  return shares;
}

}  // namespace hushgrad
