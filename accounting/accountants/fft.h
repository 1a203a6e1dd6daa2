#pragma once

#include <complex>
#include <cstddef>
#include <vector>

namespace hushgrad {

/// The smallest supported transform length >= n: 2^k, 3 * 2^k or 5 * 2^k, at least 64.
std::size_t fft_length(double n);

/// Coefficients 0 ... n/2 of the discrete Fourier transform sum over k of x[k] exp(-2 pi i j k / n); the rest of a real
/// signal's are their conjugates. n = x.size() as fft_length() returns it.
std::vector<std::complex<double>> real_spectrum(const std::vector<double>& x);

/// Bound of the absolute error of every coefficient of real_spectrum(x): Higham 2002, Theorem 24.2 bounds the error in
/// l2 by log2(n) times a few roundings times the l2 norm of the result, sqrt(n) * |x|; the factor covers the mixed radix
/// and the real-input step.
double real_spectrum_error(const std::vector<double>& x);

}  // namespace hushgrad
