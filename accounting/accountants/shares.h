// How far the Fourier coefficients of one step's losses lie from 1.
#pragma once

#include <complex>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace hushgrad {

/// Masses besides the largest one, which sits at place 0; places are taken modulo the length of the transform.
struct SparseMasses {
  std::vector<std::int64_t> places;  // ascending, away from the largest mass
  std::vector<double> masses;        // of the whole, which adds up to 1
};

/// For frequencies j = 0 ... size - 1: away[j] = sum of mass * (exp(-2 pi i j place / length) - 1), to the absolute error
/// error[j]. As all masses add up to 1, the coefficient is 1 + away: nothing of size 1 is ever rounded.
struct Shares {
  std::vector<std::complex<double>> away;
  std::vector<double> error;
};

/// From this frequency on, up to length / 2, every coefficient of this measure (the largest mass `peak` included) is
/// smaller than `limit`, which is below 1. By parts: over a run of neighbouring places with total M and total variation V,
/// |1 - exp(iw)| times the sum is at most V, so a coefficient is at most 1 - M + V / (2 sin(w / 2)). And with A the sum of
/// products of neighbours in the run, |coefficient|^2 = 1 - 2 sum over pairs of m m' (1 - cos(w distance)) is at most
/// 1 - 4 A sin(w / 2)^2. length / 2 + 1 where neither proves anything.
std::size_t small_from(const SparseMasses& masses, double peak, std::size_t length, double limit);

/// By one transform of all frequencies, 0 ... length / 2. length as fft_length() returns it. What lies next to place 0 loses
/// digits beside what lies far away.
Shares shares_by_transform(const SparseMasses& masses, std::size_t length);

/// By direct sums, for the lowest `count` frequencies: cheaper where few are asked, and accurate relative to what each
/// mass adds. Compositions in which rare large losses decide need that: there delta is tiny beside the bulk of the masses.
Shares shares_by_sums(const SparseMasses& masses, std::size_t length, std::size_t count);

/// The same with the heaviest masses summed and all others transformed: where direct sums of all are too much work.
Shares shares_by_both(const SparseMasses& masses, std::size_t length, std::size_t count);

}  // namespace hushgrad
