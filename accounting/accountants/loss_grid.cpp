#include "accounting/accountants/loss_grid.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "accounting/accountants/cell_grid.h"
#include "accounting/accountants/loss.h"
#include "accounting/accountants/quadrature.h"

namespace hushgrad {
namespace {

constexpr double kUlp = std::numeric_limits<double>::epsilon();
constexpr double kLogSqrt2Pi = 0.91893853320467274178;

double normal_tail(double z) { return std::erfc(z * 0.70710678118654752440) / 2; }

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
    const double anchor = lowest_point();
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
    grid.masses = upper_masses(cells_);
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
    GridLoss grid = empty_grid();
    grid.masses = lower_masses(cells_, o_.spacing, o_.tilt);
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

  // For q < 1 the loss ends at log(1 - q), and all of the mass may sit there within less than a cell. So the lowest grid
  // point goes to the mean of what is nearest to it, if there is such a point within a cell: then all of that moves to
  // the point without changing either probability.
  double lowest_point() {
    const double h = o_.spacing, start = loss_(x_low_);
    double low = 0, high = 1;
    for (int i = 0; i < 20; ++i) {
      const double middle = (low + high) / 2, point = start + middle * h;
      (mean_up_to(edge(point + h / 2)) > point ? low : high) = middle;
    }
    const double point = start + high * h, to = edge(point + h / 2), mean = mean_up_to(to);
    if (!(std::abs(mean - point) < 1e-3 * h)) return point;
    lowest_tangent_ = to;
    // In direction add this is the last point but one, and what lies above it is all there is: it must not fall short.
    return std::max(mean + (remove_ ? 0 : 1e-9 * h), start);
  }

  // Log of the mean likelihood ratio over x in [x_low, to].
  double mean_up_to(double to) const {
    double weight = 0, excess = 0;
    for (double x = x_low_; x < to;) {
      const double width = std::min(to - x, panel(x));
      for (const auto& node : quadrature::kGauss5) {
        const double at = x + node.at * width;
        const double p = width * node.weight * std::exp(-at * at / (2 * loss_.variance()));
        weight += p;
        excess += p * std::expm1(loss_(at));
      }
      x = x + width > x ? x + width : to;
    }
    return weight > 0 ? std::log1p(excess / weight) : loss_(x_low_);
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

  // The same, with a tangent in each. The tangent of a cell may touch the curve anywhere in it; a grid point ends up well
  // when its gaps to the tangents on both sides are equal. Where the density is smooth the middle is such a point; where
  // it is steep the next cell is taken for a scaled copy of this one.
  void fill_with_tangents() {
    fill();
    std::vector<double> masses(cells_.size());
    for (std::size_t i = 0; i < cells_.size(); ++i) masses[i] = cells_[i].low + cells_[i].high / step_tilt_;
    const double h = o_.spacing;
    double from = x_low_;
    double gap = 0;  // of the grid point at `from` to the previous tangent
    for (std::size_t i = 0; i < cells_.size(); ++i) {
      const double low = offset_ + static_cast<double>(first_ + static_cast<std::int64_t>(i)) * h;
      const double to = i + 1 == cells_.size() ? x_high_ : edge(low + h);
      double at = std::clamp(loss_.inverse(low + 0.5 * h), from, to);
      if (i == 0) {
        at = from;  // nothing is below: the very first tangent is at the end
      } else if (i == 1 && lowest_tangent_ > from && lowest_tangent_ < to) {
        at = lowest_tangent_;
      } else if (i == 1) {
        at = matching_point(low, from, to, gap);
      } else if (const double ratio = ratio_above(masses, i); std::abs(std::log(ratio)) > 0.2) {
        at = balanced_point(low, from, to, ratio);
      }
      cells_[i] = split(low, from, at, to);
      gap = remove_ ? cells_[i].gap_high : cells_[i].gap_low;
      from = to;
    }
  }

  Cell split(double low, double from, double at, double to) const {
    Cell left, right;
    integrate(left, low, from, at);
    integrate(right, low, at, to);
    return {left.low + right.low, left.high + right.high, remove_ ? left.gap_low : right.gap_low,
            remove_ ? right.gap_high : left.gap_high};
  }

  // Probability of the next cell with higher losses, relative to this one's (the tilt must not choose the tangents).
  double ratio_above(const std::vector<double>& masses, std::size_t i) const {
    const std::size_t above = remove_ ? std::min(i + 1, masses.size() - 1) : i - 1;
    return masses[i] > 0 && masses[above] > 0 ? std::clamp(masses[above] / masses[i] / step_tilt_, 1e-3, 1e3) : 1;
  }

  // Where gap_high is that ratio of gap_low: then it equals the gap_low of a copy scaled by the ratio.
  double balanced_point(double low, double from, double to, double ratio) const {
    double a = from, b = to;
    for (int i = 0; i < 12; ++i) {
      const double middle = (a + b) / 2;
      const Cell cell = split(low, from, middle, to);
      // For losses that rise with x, gap_low grows and gap_high falls with the point.
      ((cell.gap_high > ratio * step_tilt_ * cell.gap_low) == remove_ ? a : b) = middle;
    }
    return (a + b) / 2;
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

  double q_, s_;
  bool remove_;
  GridOptions o_;
  SampledLoss loss_;
  double x_low_, x_high_, share_, log_norm_, step_tilt_;
  double offset_ = 0;
  double lowest_tangent_ = std::numeric_limits<double>::quiet_NaN();
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
