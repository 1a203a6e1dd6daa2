// The sum of many independent privacy losses, bounded through an exponentially tilted Fourier transform.
#pragma once

#include <complex>
#include <cstdint>
#include <optional>
#include <vector>

#include "accounting/accountants/gaussian.h"
#include "accounting/accountants/loss_grid.h"
#include "accounting/accountants/spending.h"

namespace hushgrad {

/// How to look at a composition in one direction near one (epsilon, delta). Any values give valid bounds; good ones give
/// tight bounds.
struct Window {
  double epsilon = 0;    // where delta is wanted, roughly
  double log_delta = 0;  // roughly its logarithm there
  double tilt = 0;       // > 0
  double deviation = 0;  // of the tilted sum of losses
  double spacing = 0;
  double period = 0;     // of the transform, in units of loss
  double reach = 0;      // standard deviations of one step's x that are covered
  double finest = 0;     // the smallest spacing that is affordable
  double remainder = 0;  // tilt by which the far tail of the tilted sum is bounded
  bool rare = false;     // rare large losses decide; the sum is far from normal
  bool coarse = false;   // the grid is so coarse that another accountant may be tighter
};

/// A window around the epsilon at which delta has that logarithm; or around the given epsilon, where log_delta may be
/// known (roughly).
/// Empty where no affordable grid describes the steps (noise_multiplier tiny, counts astronomical).
std::optional<Window> window_at_delta(const Spending& spending, Direction direction, double log_delta);
std::optional<Window> window_at_epsilon(const Spending& spending, Direction direction, double epsilon,
                                        std::optional<double> log_delta = {});

/// The same window with a finer grid, for an interval around `epsilon` that came out `width` wide. Empty where none is
/// affordable.
std::optional<Window> finer_window(const Window& window, double epsilon, double width);

/// delta(epsilon) of a composition in one direction, one-sided. `spending` must have no unprotected part.
class Composition {
 public:
  Composition(const Spending& spending, Direction direction, Bound bound, const Window& window);

  /// Bound::upper: log delta is at most this. Bound::lower: at least. Any finite epsilon; never NaN.
  double log_delta(double epsilon) const;

 private:
  struct Coefficient {
    std::int64_t frequency;
    std::complex<double> value;
    double error;  // absolute
    std::complex<double> weight, weight_up;  // 1 / (1 - exp(-tilt h + i w)), the same with tilt + 1
  };

  double finish(double log_tilted_sum, double epsilon) const;

  Bound bound_;
  double tilt_, spacing_, offset_ = 0, log_moment_ = 0, infinite_ = 0, loss_error_ = 0, relative_error_ = 0;
  std::int64_t length_;
  double dropped_error_ = 0;
  double far_tilt_ = 0, far_log_moment_ = 0;  // of the tilted sum, for the wrapped far tail
  std::vector<Coefficient> coefficients_;
};

}  // namespace hushgrad
