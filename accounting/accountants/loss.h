// The privacy loss of one Poisson-sampled Gaussian step as a function of the released value x, at sensitivity 1:
//
//   loss(x) = log( ((1 - q) N(x; 0, s^2) + q N(x; 1, s^2)) / N(x; 0, s^2) ) = log(1 - q + q exp((2 x - 1) / (2 s^2)))
//
// It rises from log(1 - q) to infinity.
#pragma once

#include <cmath>
#include <limits>

namespace hushgrad {

class SampledLoss {
 public:
  /// 0 < q <= 1, s > 0.
  SampledLoss(double q, double s) : q_(q), variance_(s * s), log_q_(std::log(q)), lowest_(std::log1p(-q)) {}

  /// Relatively accurate, also near 0 and near log(1 - q).
  double operator()(double x) const {
    const double g = (x - 0.5) / variance_;
    if (q_ == 1) return g;
    return g < 30 ? std::log1p(q_ * std::expm1(g)) : g + std::log(q_ + (1 - q_) * std::exp(-g));
  }

  /// The x at which the loss is `loss`; -infinity at and below log(1 - q).
  double inverse(double loss) const {
    if (q_ == 1) return 0.5 + variance_ * loss;
    if (loss <= lowest_) return -std::numeric_limits<double>::infinity();
    const double g = loss < 30 ? std::log1p(std::expm1(loss) / q_)
                               : loss - log_q_ + std::log1p(-(1 - q_) * std::exp(-loss));
    return 0.5 + variance_ * g;
  }

  /// log(1 - q); -infinity for q = 1.
  double lowest() const { return lowest_; }
  /// Where both components weigh the same. The loss is analytic up to pi s^2 above and below this point.
  double bend() const { return 0.5 + variance_ * (std::log1p(-q_) - log_q_); }
  double variance() const { return variance_; }

 private:
  double q_, variance_, log_q_, lowest_;
};

}  // namespace hushgrad
