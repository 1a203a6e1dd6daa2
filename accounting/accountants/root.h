// Where a falling function crosses zero, bracketed from both sides so that the caller can take the safe end.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

namespace hushgrad {

/// f(below) > 0 >= f(above), and above - below is small. above = 0 means f(0) <= 0 (below is 0 too); above = infinity
/// means that no crossing was found. Where f is NaN nothing is known: what was found before it stands, or 0 and infinity.
struct Crossing {
  double below;
  double above;
};

/// f: falling on [0, infinity), may return +-infinity. guess >= 0, step > 0: where and how far to look first.
/// Works for functions that fall only up to rounding: both ends were evaluated, whatever lies between.
template <typename Function>
Crossing find_crossing(Function&& f, double guess, double step, double relative_tolerance) {
  double below = 0, above = 0, f_below = 0, f_above = 0;
  constexpr double kNone = std::numeric_limits<double>::infinity();
  double x = std::max(guess, 0.0);
  double fx = f(x);
  if (std::isnan(fx)) return {0, kNone};
  if (fx > 0) {
    do {
      below = x;
      f_below = fx;
      x += step;
      step *= 2;
      if (!(x < 1e300)) return {below, kNone};
      fx = f(x);
      if (std::isnan(fx)) return {below, kNone};
    } while (fx > 0);
    above = x;
    f_above = fx;
  } else {
    do {
      above = x;
      f_above = fx;
      if (above == 0) return {0, 0};
      x = std::max(0.0, x - step);
      step *= 2;
      fx = f(x);
      if (std::isnan(fx)) return {0, above};
    } while (!(fx > 0));
    below = x;
    f_below = fx;
  }
  // Regula falsi that falls back to halving: the functions here are nearly straight lines, except at kinks.
  bool halve = false;
  for (int i = 0; i < 80 && above - below > relative_tolerance * above; ++i) {
    const double width = above - below;
    const double line = below + width * (f_below / (f_below - f_above));
    const double margin = std::max(0.02 * width, std::min(0.4 * relative_tolerance * above, 0.4 * width));
    x = halve || !std::isfinite(line) ? below + width / 2 : std::clamp(line, below + margin, above - margin);
    fx = f(x);
    if (std::isnan(fx)) break;
    if (fx > 0) {
      below = x;
      f_below = fx;
    } else {
      above = x;
      f_above = fx;
    }
    halve = !halve && above - below > 0.5 * width;
  }
  return {below, above};
}

}  // namespace hushgrad
