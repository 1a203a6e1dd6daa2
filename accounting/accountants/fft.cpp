#include "accounting/accountants/fft.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <unsupported/Eigen/FFT>

namespace hushgrad {

std::size_t fft_length(double n) {
  std::size_t power = 64;
  while (static_cast<double>(power) < n) power *= 2;
  std::size_t best = power;
  for (std::size_t odd : {std::size_t{3}, std::size_t{5}}) {
    const std::size_t candidate = power / (odd == 3 ? 4 : 8) * odd;
    if (static_cast<double>(candidate) >= n && candidate >= 64) best = std::min(best, candidate);
  }
  return best;
}

std::vector<std::complex<double>> real_spectrum(const std::vector<double>& x) {
  // The plan holds its twiddle factors; one a thread, so that no two threads share it.
  thread_local Eigen::FFT<double> fft = [] {
    Eigen::FFT<double> plan;
    plan.SetFlag(Eigen::FFT<double>::HalfSpectrum);
    return plan;
  }();
  std::vector<std::complex<double>> spectrum;
  fft.fwd(spectrum, x);
  return spectrum;
}

double real_spectrum_error(const std::vector<double>& x) {
  double squares = 0;
  for (double value : x) squares += value * value;
  const double n = static_cast<double>(x.size());
  return 20 * std::numeric_limits<double>::epsilon() * std::log2(n) * std::sqrt(n * squares);
}

}  // namespace hushgrad
