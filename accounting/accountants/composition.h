// The sum of many independent privacy losses, bounded through an exponentially tilted Fourier transform.
#pragma once

#include <complex>
#include <cstdint>
#include <limits>
#include <vector>

#include "accounting/accountants/gaussian.h"
#include "accounting/accountants/loss_grid.h"
#include "accounting/accountants/spending.h"
#include "accounting/accountants/window.h"

namespace hushgrad {

/// delta(epsilon) of a composition in one direction, one-sided. `spending` must have no unprotected part.
class Composition {
 public:
  Composition(const Spending& spending, Direction direction, Bound bound, const Window& window);

  /// Bound::upper: log delta is at most this. Bound::lower: at least. Any finite epsilon; never NaN.
  double log_delta(double epsilon) const;
  /// Not all frequencies that matter could be summed directly.
  bool transformed() const { return transformed_; }

 private:
  struct Coefficient {
    std::int64_t frequency;
    std::complex<double> value;
    double error;  // absolute
    std::complex<double> weight, weight_up;  // 1 / (1 - exp(-tilt h + i w)), the same with tilt + 1
  };

  // Of steps of one kind, outcomes beyond their grid: how many are expected under Q, and a lower bound of their loss.
  struct BeyondSteps {
    double expected, lowest;
  };

  struct Product;

  void multiply(Product& product, const GridLoss& grid, double count);
  void finish_product(Product& product);
  void set_apart(const GridLoss& grid, double count);
  double beyond_but_below(double epsilon) const;
  double beyond(double epsilon) const;
  double finish(double log_tilted_sum, double epsilon) const;

  Bound bound_;
  bool cut_, transformed_ = false;
  double tilt_, spacing_, offset_ = 0, log_moment_ = 0, infinite_ = 0, loss_error_ = 0, relative_error_ = 0;
  std::int64_t length_;
  double dropped_error_ = 0;
  // Of outcomes in which no step is beyond its grid: log of their probability under Q, and how much smaller that under P is.
  double log_within_ = 0, log_within_ratio_ = 0;
  std::vector<BeyondSteps> beyond_;
  double lowest_total_ = 0;  // loss
  double rest_tilt_, log_rest_moment_ = 0;  // of how far all losses together fall below zero under Q
  double far_tilt_, far_log_moment_ = 0;  // of the tilted sum, for the wrapped far tail
  std::vector<Coefficient> coefficients_;
};

}  // namespace hushgrad
