// How to look at a composition: where to centre, how much to tilt, how fine a grid. Nothing here decides whether a bound
// holds, only how tight it is.
#pragma once

#include <limits>
#include <optional>

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
  double log_fine = -std::numeric_limits<double>::infinity();  // where grid points may be further apart, and how far:
  double widest = 0;     // see GridOptions; log_fine is of all steps together
  double period = 0;     // of the transform, in units of loss
  Reach reach = 0;       // of one step
  double finest = 0;     // the smallest spacing that is affordable
  double remainder = 0;  // tilt by which the far tail of the tilted sum is bounded
  double rest_tilt = 0;  // by which is bounded how far all other losses fall below zero, where the grid is cut
  // The share of the range of losses that would be left if those far above epsilon were kept apart; 1: none would be.
  double uncut = 1;
  bool coarse = false;   // the grid is so coarse that another accountant may be tighter
};

/// A window around the epsilon at which delta has that logarithm; or around the given epsilon, where log_delta may be
/// known (roughly).
/// Empty where no affordable grid describes the steps (noise_multiplier tiny, counts astronomical).
std::optional<Window> window_at_delta(const Spending& spending, Direction direction, double log_delta);
std::optional<Window> window_at_epsilon(const Spending& spending, Direction direction, double epsilon,
                                        std::optional<double> log_delta = {});
/// Losses far above epsilon kept apart from the grid (docs/accounting.md, "Rare draws"), if Window::uncut is below 1.
std::optional<Window> cut_window(const Spending& spending, Direction direction, double epsilon, double log_delta);

/// The same window with a finer grid, for an interval around `epsilon` that came out `width` wide. Empty where none is
/// affordable: one that needs no transform may be longer.
std::optional<Window> finer_window(const Window& window, double epsilon, double width, bool transformed);

}  // namespace hushgrad
