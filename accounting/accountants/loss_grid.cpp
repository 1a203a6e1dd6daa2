#include "accounting/accountants/loss_grid.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "accounting/accountants/loss.h"
#include "accounting/accountants/quadrature.h"

namespace hushgrad {
namespace {

constexpr double kUlp = std::numeric_limits<double>::epsilon();
constexpr double kLogSqrt2Pi = 0.91893853320467274178;

double normal_tail(double z) { return std::erfc(z * 0.70710678118654752440) / 2; }

// 1 - exp(-u) for u >= 0; the losses here are mostly so small that a few terms do.
double rise_of(double u) {
  if (u > 0.01) return -std::expm1(-u);
  return u * (1 - u / 2 * (1 - u / 3 * (1 - u / 4 * (1 - u / 5 * (1 - u / 6)))));
}

// What one grid cell [k h, (k + 1) h] holds, as integrals over the true loss l = k h + u with probability density p.
// Entries that belong to grid point k carry its tilt, those of k + 1 carry the tilt of k + 1.
struct Cell {
  double low = 0;   // p (e^-u - e^-h) / (1 - e^-h): the share of grid point k
  double high = 0;  // p (1 - e^-u) / (1 - e^-h): the share of grid point k + 1
  // How far the true curve lies above its tangent inside the cell, at k and at k + 1:
  double gap_low = 0;   // p (1 - e^-u) over what lies below the point of the tangent
  double gap_high = 0;  // p (e^(h-u) - 1) over what lies above it
};

class Discretiser {
 public:
  Discretiser(double q, double s, Direction direction, Bound bound, const GridOptions& options)
      : q_(q), s_(s), remove_(direction == Direction::remove), o_(options), loss_(q, s),
        x_low_(-options.reach * s), x_high_(1 + options.reach * s), share_(-std::expm1(-options.spacing)), log_norm_(kLogSqrt2Pi + std::log(s)),
        step_tilt_(std::exp(options.tilt * options.spacing)) {
    // Cells are walked along x, that is along rising loss(x); the losses of direction add are -loss(x), and there large
    // x has the lowest losses. Where those no longer matter, the rest is left to the tail.
    if (!remove_) x_high_ = negligible_from();
    const double h = o_.spacing;
    // Where the end at log(1 - q) is out of reach, the grid starts at the first loss that is in reach.
    const double anchor = loss_(x_low_) - h < loss_.lowest() ? lowest_point() : loss_(x_low_) + 0.5 * h;
    offset_ = std::fmod(anchor, h);
    first_ = std::llround((anchor - offset_) / h) - 1;
    const auto last = std::max(first_ + 1, static_cast<std::int64_t>(std::ceil((loss_(x_high_) - offset_) / h)));
    cells_.resize(static_cast<std::size_t>(last - first_));
    bound == Bound::upper ? fill() : fill_with_tangents();
    if (!remove_) {
      std::reverse(cells_.begin(), cells_.end());
      first_ = -last;
      offset_ = -offset_;
    }
  }

  GridLoss upper() const {
    GridLoss grid = empty_grid();
    grid.masses.assign(cells_.size() + 1, 0);
    for (std::size_t i = 0; i < cells_.size(); ++i) {
      grid.masses[i] += cells_[i].low;
      grid.masses[i + 1] += cells_[i].high;
    }
    // The two tails of x: the one with the largest losses counts as infinite loss; the other is moved up to the second
    // grid point, which is above all of its losses.
    const double below = remove_ ? mixture(-x_low_, 1 - x_low_) : normal_tail(x_high_ / s_);
    const double above = remove_ ? mixture(x_high_, x_high_ - 1) : normal_tail(-x_low_ / s_);
    const double second = offset_ + static_cast<double>(first_ + 1) * o_.spacing;
    grid.masses[1] += below * std::exp(o_.tilt * second - o_.log_scale);
    grid.infinite = above;
    return grid;
  }

  GridLoss lower() const {
    // The outermost cells may hold too little for a convex curve; leaving them out only lowers the curve.
    GridLoss grid = empty_grid();
    std::size_t top = cells_.size();
    while (top > 1 && cells_[top - 1].high == 0) --top;
    for (; top >= 2; top -= std::max<std::size_t>(1, top / 64)) {
      if (lowered(top, grid.masses) && eliminate_negative(grid.masses)) return grid;
    }
    grid.masses.assign(1, 0);
    return grid;
  }

 private:
  GridLoss empty_grid() const {
    const double largest = std::max(std::abs(static_cast<double>(first_)),
                                    std::abs(static_cast<double>(first_) + static_cast<double>(cells_.size())));
    GridLoss grid;
    grid.offset = offset_;
    grid.first = first_;
    grid.log_scale = o_.log_scale;
    grid.loss_error = 16 * kUlp * largest * o_.spacing;
    grid.relative_error = 4e-14 + 4 * kUlp * (o_.reach * o_.reach + std::abs(o_.log_scale) +
                                              (1 + o_.tilt) * largest * o_.spacing);
    return grid;
  }

  double mixture(double from_0, double from_1) const {
    return (1 - q_) * normal_tail(from_0 / s_) + q_ * normal_tail(from_1 / s_);
  }

  // x above which direction add has less than e^-45 of its tilted mass.
  double negligible_from() const {
    double low = 0, high = x_high_;
    for (int i = 0; i < 40; ++i) {
      const double x = (low + high) / 2;
      (x * x / (2 * loss_.variance()) + o_.tilt * loss_(x) < 45 ? low : high) = x;
    }
    return high;
  }

  // For q < 1 the loss ends at log(1 - q), and all of the mass may sit there within less than a cell. The lowest grid
  // point that matters goes to the mean of what is nearest to it, found well enough by bisection.
  double lowest_point() const {
    const double h = o_.spacing, lowest = loss_.lowest();
    double low = 0, high = 1;
    for (int i = 0; i < 20; ++i) {
      const double middle = (low + high) / 2, point = lowest + middle * h;
      const double to = std::clamp(loss_.inverse(point + h / 2), x_low_, x_high_);
      double balance = 0;  // of likelihood ratio above and below the point
      for (double x = x_low_; x < to;) {
        const double width = std::min(to - x, panel(x));
        for (const auto& node : quadrature::kGauss3) {
          const double at = x + node.at * width;
          balance += width * node.weight * std::exp(-at * at / (2 * loss_.variance())) * std::expm1(loss_(at) - point);
        }
        x = x + width > x ? x + width : to;
      }
      (balance > 0 ? low : high) = middle;
    }
    // Direction add must not fall short: the curve of what lies above the last point but one is all there is.
    return lowest + (remove_ ? low : high + 1e-3) * h;
  }

  // Fills the cells along x.
  void fill() {
    double from = x_low_;
    for (std::size_t i = 0; i < cells_.size(); ++i) {
      const double low = offset_ + static_cast<double>(first_ + static_cast<std::int64_t>(i)) * o_.spacing;
      const double to = i + 1 == cells_.size() ? x_high_ : edge(low + o_.spacing);
      integrate(cells_[i], low, from, to);
      from = to;
    }
  }

  // The same, with a tangent in each. The tangent of a cell may touch the curve anywhere in it; a grid point ends up well when
  // its gaps to the tangents on both sides are equal. Where the density is smooth the middle is such a point; where it
  // is steep the point is looked for.
  void fill_with_tangents() {
    const double h = o_.spacing;
    double from = x_low_;
    double off_middle = 0;  // where the previous tangent is, in cells; the very first one is at the end
    double gap = 0;         // of the grid point at `from` to the previous tangent
    for (std::size_t i = 0; i < cells_.size(); ++i) {
      const double low = offset_ + static_cast<double>(first_ + static_cast<std::int64_t>(i)) * h;
      const double to = i + 1 == cells_.size() ? x_high_ : edge(low + h);
      double at = std::clamp(loss_.inverse(low + 0.5 * h), from, to);
      if (i == 0) {
        at = from;
      } else if (i == 1 ? !middle_matches(low, from, at, gap) : to - from > 0.25 * s_) {
        at = matching_point(low, from, to, gap);
        off_middle = (loss_(at) - low) / h - 0.5;
      } else if (off_middle != 0) {
        // Neighbours in a smooth stretch match when they are off alternately; damping leads back to the middle.
        off_middle = std::abs(off_middle) < 0.01 ? 0 : -0.7 * off_middle;
        at = std::clamp(loss_.inverse(low + (0.5 + off_middle) * h), from, to);
      }
      Cell left, right;
      integrate(left, low, from, at);
      integrate(right, low, at, to);
      cells_[i] = {left.low + right.low, left.high + right.high, remove_ ? left.gap_low : right.gap_low,
                   remove_ ? right.gap_high : left.gap_high};
      gap = remove_ ? right.gap_high : right.gap_low;
      from = to;
    }
  }

  // Whether the lowest point was well chosen: then a tangent in the middle is right even where both gaps are so small
  // that looking for equal ones would end anywhere.
  bool middle_matches(double low, double from, double middle, double gap) const {
    Cell cell;
    integrate(cell, low, from, middle);
    return remove_ ? cell.gap_low <= gap + 1e-3 * o_.spacing * (cell.low + cell.high) : cell.gap_high <= gap;
  }

  // The x up to which the gap of the grid point at `from` grows to `gap`.
  double matching_point(double low, double from, double to, double gap) const {
    double reached = 0;
    for (double x = from; x < to;) {
      const double width = std::min(to - x, panel(x));
      const double more = gap_between(low, x, x + width);
      if (reached + more > gap) {
        double inside = 0, outside = width;
        for (int i = 0; i < 20; ++i) {
          const double middle = (inside + outside) / 2;
          (reached + gap_between(low, x, x + middle) > gap ? outside : inside) = middle;
        }
        return x + inside;
      }
      reached += more;
      x = x + width > x ? x + width : to;
    }
    return to;
  }

  double gap_between(double low, double from, double to) const {
    Cell cell;
    integrate(cell, low, from, to);
    return remove_ ? cell.gap_low : cell.gap_high;
  }

  double edge(double loss) const { return std::clamp(loss_.inverse(loss), x_low_, x_high_); }

  // Adds x in [from, to], whose loss(x) must lie in the cell [low, low + h], with both gaps taken over all of it.
  void integrate(Cell& cell, double low, double from, double to) const {
    while (from < to) {
      const double full = panel(from);
      const double width = std::min(to - from, full);
      if (width < full / 12) {
        add_panel(quadrature::kGauss3, cell, low, from, width);
      } else {
        add_panel(quadrature::kGauss5, cell, low, from, width);
      }
      from = from + width > from ? from + width : to;
    }
  }

  template <typename Rule>
  void add_panel(const Rule& rule, Cell& cell, double low, double from, double width) const {
    const double h = o_.spacing;
    const double lowest_loss = remove_ ? low : -(low + h);
    const double constant = o_.tilt * lowest_loss - o_.log_scale - log_norm_;
    for (const auto& node : rule) {
      const double x = from + node.at * width;
      const double loss = loss_(x);
      const double u = std::clamp(remove_ ? loss - low : low + h - loss, 0.0, h);
      const double p = width * node.weight * std::exp(constant - x * x / (2 * loss_.variance()) + (remove_ ? loss : 0.0));
      const double rise = rise_of(u), rest = rise_of(h - u);
      cell.low += p * std::max(0.0, 1 - rise / share_);
      cell.high += p * rise / share_ * step_tilt_;
      cell.gap_low += p * rise;
      cell.gap_high += p * rest / (1 - rest) * step_tilt_;
    }
  }

  // Wide enough to be fast, narrow enough that five points are exact to rounding: the exponent changes by less than
  // 1/2, and the bend of the loss is several panels away in the complex plane.
  double panel(double x) const {
    const double variance = loss_.variance();
    const double smooth = 0.5 * variance / (std::abs(x) + 1 + s_);
    return std::min(smooth, 0.1 * std::hypot(3.14159 * variance, x - loss_.bend()));
  }

  // The masses of the lowered curve over the first `top` cells, before it is made convex. False if the curve would have
  // to become negative.
  bool lowered(std::size_t top, std::vector<double>& masses) const {
    const double grow = std::expm1(o_.spacing);
    std::vector<double> drop(top + 1, 0);  // how far the curve is lowered at every grid point
    for (std::size_t i = 0; i + 1 < top; ++i) {
      drop[i] = std::max(drop[i], cells_[i].gap_low);
      drop[i + 1] = cells_[i].gap_high;
    }
    // The curve ends at 0 on the last grid point. Its last line is the tangent there, the axis, so the point before
    // goes down to 0 too.
    const double to_axis = cells_[top - 1].high / step_tilt_ * share_;
    if (drop[top - 1] > to_axis) return false;
    drop[top - 1] = to_axis;

    masses.assign(top + 1, 0);
    for (std::size_t i = 0; i < top; ++i) {
      masses[i] = cells_[i].low - (drop[i + 1] / step_tilt_ - drop[i]) / grow;
      masses[i] += i == 0 ? drop[0] : cells_[i - 1].high + (drop[i] - drop[i - 1] * step_tilt_) / share_;
    }
    return true;
  }

  // Lowers the curve at every concave kink (a negative mass) to the line between its neighbours, until none is left.
  // False if that would need a negative mass at the last grid point.
  bool eliminate_negative(std::vector<double>& masses) const {
    const auto n = static_cast<std::ptrdiff_t>(masses.size());
    std::vector<std::ptrdiff_t> previous(masses.size()), next(masses.size()), pending;
    for (std::ptrdiff_t i = 0; i < n; ++i) {
      previous[i] = i - 1;
      next[i] = i + 1;
      if (masses[i] < 0) pending.push_back(i);
    }
    const double h = o_.spacing;
    while (!pending.empty()) {
      const std::ptrdiff_t i = pending.back();
      pending.pop_back();
      const double mass = masses[i];
      if (mass >= 0) continue;
      const std::ptrdiff_t a = previous[i], b = next[i];
      if (b == n) return false;
      const double up = static_cast<double>(b - i) * h, down = static_cast<double>(i - a) * h;
      // Below the lowest grid point comes likelihood ratio 0, which carries no probability.
      const double to_b = a < 0 ? 1 : std::expm1(-down) / std::expm1(-(up + down));
      masses[i] = 0;
      masses[b] += mass * to_b * std::exp(o_.tilt * up);
      if (masses[b] < 0) pending.push_back(b);
      if (a >= 0) {
        masses[a] += mass * (1 - to_b) * std::exp(-o_.tilt * down);
        if (masses[a] < 0) pending.push_back(a);
        next[a] = b;
      }
      previous[b] = a;
    }
    return true;
  }

  double q_, s_;
  bool remove_;
  GridOptions o_;
  SampledLoss loss_;
  double x_low_, x_high_, share_, log_norm_, step_tilt_;
  double offset_ = 0;
  std::int64_t first_ = 0;
  std::vector<Cell> cells_;
};

}  // namespace

GridLoss grid_loss(double sampling_probability, double noise_multiplier, Direction direction, Bound bound,
                   const GridOptions& options) {
  const Discretiser discretiser(sampling_probability, noise_multiplier, direction, bound, options);
  return bound == Bound::upper ? discretiser.upper() : discretiser.lower();
}

}  // namespace hushgrad
