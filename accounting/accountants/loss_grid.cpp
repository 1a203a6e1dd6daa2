#include "accounting/accountants/loss_grid.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "accounting/accountants/cell_grid.h"
#include "accounting/accountants/loss.h"
#include "accounting/accountants/normal.h"
#include "accounting/accountants/quadrature.h"

namespace hushgrad {
namespace {

constexpr double kUlp = std::numeric_limits<double>::epsilon();
constexpr double kLogSqrt2Pi = 0.91893853320467274178;

class Discretiser {
 public:
  Discretiser(double q, double s, Direction direction, Bound bound, const GridOptions& options)
      : q_(q), s_(s), remove_(direction == Direction::remove), o_(options), loss_(q, s), variance_(s * s),
        x_low_(options.reach.low(s)), x_high_(options.reach.high(s)), log_q_(std::log(q)), log_norm_(kLogSqrt2Pi + std::log(s)) {
    // Cells are walked along x, that is along rising loss(x); the losses of direction add are -loss(x), and there large
    // x has the lowest losses. Where those no longer matter, the rest is left to the tail.
    x_high_ = remove_ ? std::min(x_high_, highest_below(options.reach.cut)) : negligible_from();
    const bool cut = remove_ && x_high_ < options.reach.high(s);
    const double anchor = lowest_point();
    offset_ = std::fmod(anchor, o_.spacing);
    // A cell that is cut in the middle would cost the lower curve all that it holds.
    if (cut) x_high_ = std::max(loss_.inverse(offset_ + std::floor((loss_(x_high_) - offset_) / o_.spacing) * o_.spacing), x_low_ + s_);
    place_edges(std::llround((anchor - offset_) / o_.spacing) - 1);
    bound == Bound::upper ? fill() : fill_with_tangents();
    if (!remove_) mirror();
  }

  GridLoss upper() const {
    GridLoss grid = empty_grid();
    grid.masses = upper_masses(cells_);
    // The two tails of x: the one with the largest losses is kept apart (remove) or counts as infinite loss (add, where next
    // to nothing lies there); the other is moved up to the second grid point, which is above all of its losses.
    const double below = remove_ ? mixture(-x_low_, 1 - x_low_) : normal_tail(x_high_ / s_);
    grid.masses[1] += below * std::exp(o_.tilt * grid.loss(1, o_.spacing) - o_.log_scale);
    if (!remove_) grid.infinite = normal_tail(-x_low_ / s_);
    return grid;
  }

  GridLoss lower() const {
    GridLoss grid = empty_grid();
    grid.masses = lower_masses(cells_, o_.spacing, o_.tilt);
    grid.places.resize(grid.masses.size());
    return grid;
  }

 private:
  // A grid point and the x at which the loss passes it; x is -infinity below log(1 - q).
  struct Edge {
    std::int64_t place;
    double loss, x, log_density;  // of the losses, tilted
  };

  // Integrals over a range of x, with the likelihood ratio R(x) and its values at both ends of the cell.
  struct Excess {
    double low = 0;   // of R - R(low end)
    double high = 0;  // of R(high end) - R
  };

  GridLoss empty_grid() const {
    GridLoss grid;
    grid.offset = offset_;
    grid.places = places_around(cells_);
    const double largest = std::max(std::abs(static_cast<double>(grid.places.front())),
                                    std::abs(static_cast<double>(grid.places.back())));
    if (remove_) {
      grid.beyond = {normal_tail(x_high_ / s_), q_ * normal_between((x_high_ - 1) / s_, x_high_ / s_), loss_(x_high_), loss_.lowest()};
    }
    grid.log_scale = o_.log_scale;
    grid.loss_error = 16 * kUlp * largest * o_.spacing;
    grid.relative_error = 4e-14 + 4 * kUlp * (std::pow(std::max(o_.reach.around, o_.reach.above), 2) + std::abs(o_.log_scale) +
                                              (1 + o_.tilt) * largest * o_.spacing);
    return grid;
  }

  double mixture(double from_0, double from_1) const {
    return (1 - q_) * normal_tail(from_0 / s_) + q_ * normal_tail(from_1 / s_);
  }

  // x up to which losses are at most `cut`; the grid keeps more than the bulk of the outcomes in any case.
  double highest_below(double cut) const { return std::max(loss_.inverse(cut), std::max(2 * s_, x_low_ + s_)); }

  // x above which direction add has less than e^-45 of its tilted mass.
  double negligible_from() const {
    double low = 0, high = x_high_;
    for (int i = 0; i < 40; ++i) {
      const double x = (low + high) / 2;
      (x * x / (2 * variance_) + o_.tilt * loss_(x) < 45 ? low : high) = x;
    }
    return high;
  }

  // For q < 1 the loss ends at log(1 - q), and all of the mass may sit there within less than a cell. So the lowest grid
  // point goes to the mean of what is nearest to it, if there is such a point within a cell: then all of that moves to
  // the point without changing either probability. What is nearest reaches half a cell up, and further where what is left
  // of the cell still outweighs all that lies above it: downward the curve at the next point falls by as much.
  double lowest_point() {
    double lowest = lowest_mean(0.5);
    for (double share : {0.5, 0.75, 0.9, 0.97, 0.99}) {
      const double h = o_.spacing, point = lowest_mean(share), to = clamped(point + share * h), mean = mean_up_to(to);
      if (!(std::abs(mean - point) < 1e-3 * h)) break;
      lowest_tangent_ = to;
      // In direction add this is the last point but one, and what lies above it is all there is: it must not fall short.
      lowest = std::max(mean + (remove_ ? 0 : 1e-9 * h), loss_(x_low_));
      if (!remove_ || !outweighs(to, clamped(lowest + h))) break;
    }
    return lowest;
  }

  // A point with a mean of what reaches `share` of a cell above it at most.
  double lowest_mean(double share) const {
    const double h = o_.spacing, start = loss_(x_low_);
    double low = 0, high = 1;
    for (int i = 0; i < 20; ++i) {
      const double middle = (low + high) / 2, point = start + middle * h;
      (mean_up_to(clamped(point + share * h)) > point ? low : high) = middle;
    }
    return start + high * h;
  }

  // Whether E_Q[R(to) - R] over x in [from, to] is more than a tenth of E_Q[R - R(to)] over all above.
  bool outweighs(double from, double to) const {
    const double ratio = std::exp(loss_(to));
    const double within = ratio * normal_between(from / s_, to / s_) - q_ * normal_between((from - 1) / s_, (to - 1) / s_) -
                          (1 - q_) * normal_between(from / s_, to / s_);
    return within > 0.1 * (mixture(to, to - 1) - ratio * normal_tail(to / s_));
  }

  // Log of the mean likelihood ratio over x in [x_low, to].
  double mean_up_to(double to) const {
    const double without = normal_between(x_low_ / s_, to / s_);
    const double with = normal_between((x_low_ - 1) / s_, (to - 1) / s_);
    return without > 0 ? std::log1p(q_ * (with / without - 1)) : loss_(x_low_);
  }

  double clamped(double loss) const { return std::clamp(loss_.inverse(loss), x_low_, x_high_); }

  Edge edge_at(std::int64_t place) const {
    const double loss = offset_ + static_cast<double>(place) * o_.spacing, x = loss_.inverse(loss);
    const double g = (x - 0.5) / variance_;
    // d loss / dx = q e^g / (s^2 R)
    const double log_q_density = -x * x / (2 * variance_) - log_norm_ + loss - log_q_ - g + std::log(variance_);
    return {place, loss, x, log_q_density + (remove_ ? loss : 0) + tilt_of(loss) - o_.log_scale};
  }

  double tilt_of(double loss) const { return o_.tilt * (remove_ ? loss : -loss); }

  std::int64_t steps_at(const Edge& edge) const {
    const double steps = std::min(std::exp((o_.log_fine - edge.log_density) / 3), o_.widest / o_.spacing);
    return steps > 1 ? static_cast<std::int64_t>(steps) : 1;
  }

  void place_edges(std::int64_t first) {
    const auto last = std::max(first + 1, static_cast<std::int64_t>(std::ceil((loss_(x_high_) - offset_) / o_.spacing)));
    edges_.push_back(edge_at(first));
    // The cells around the lowest point stay narrow.
    while (edges_.back().place < last) {
      const Edge& from = edges_.back();
      std::int64_t steps = from.place < first + 2 ? 1 : std::min(steps_at(from), last - from.place);
      Edge to = edge_at(from.place + steps);
      // Neither past the end of a thin stretch nor over a bump between two.
      while (steps > 1 && (steps_at(to) < steps / 2 || to.x - from.x > s_ / 2)) {
        steps /= 2;
        to = edge_at(from.place + steps);
      }
      edges_.push_back(to);
    }
    cells_.resize(edges_.size() - 1);
    for (std::size_t i = 0; i < cells_.size(); ++i) {
      cells_[i].place = edges_[i].place;
      cells_[i].steps = edges_[i + 1].place - edges_[i].place;
    }
  }

  double from(std::size_t i) const { return std::max(edges_[i].x, x_low_); }
  double to(std::size_t i) const { return i + 1 == cells_.size() ? x_high_ : std::clamp(edges_[i + 1].x, x_low_, x_high_); }

  void fill() {
    for (std::size_t i = 0; i < cells_.size(); ++i) set_cell(i, {}, integrate(i, from(i), to(i)));
  }

  // The same, with a tangent in each. The tangent of a cell may touch the curve anywhere in it; a grid point ends up well
  // when its gaps to the tangents on both sides are equal.
  void fill_with_tangents() {
    for (std::size_t i = 0; i < cells_.size(); ++i) {
      const double at = tangent_point(i);
      set_cell(i, integrate(i, from(i), at), integrate(i, at, to(i)));
    }
  }

  double tangent_point(std::size_t i) const {
    if (i == 0) return from(0);  // nothing is below: the very first tangent is at the end
    if (i == 1 && lowest_tangent_ > from(1) && lowest_tangent_ < to(1)) return lowest_tangent_;
    if (i == 1) return matching_point();
    const double share = tangent_share(i), x_low = edges_[i].x, x_high = edges_[i + 1].x;
    const double at = x_high - x_low < 0.2 * variance_ ? x_low + share * (x_high - x_low)
                                                       : loss_.inverse(edges_[i].loss + share * width(i));
    return std::clamp(at, from(i), to(i));
  }

  // How far into the cell (by loss) the tangent touches. With density d and width w, the gaps are about d w^2 f^2 / 2 at
  // the low end and d w^2 (1 - f)^2 / 2 at the high end, f the share from the side of low losses; a slope of the density
  // moves the balance within a cell by a twelfth. The tilt must not choose the tangents.
  double tangent_share(std::size_t i) const {
    const double slope = edges_[i + 1].log_density - tilt_of(edges_[i + 1].loss) - edges_[i].log_density + tilt_of(edges_[i].loss);
    const std::size_t next = remove_ ? std::min(i + 1, cells_.size() - 1) : i - 1;
    const double wider = std::log(width(next) / width(i));
    const double log_ratio = std::clamp((remove_ ? slope : -slope) * 2 / 3 + 2 * wider, -7.0, 7.0);
    const double share = 1 / (1 + std::exp(log_ratio / 2));
    return remove_ ? share : 1 - share;
  }

  double width(std::size_t i) const { return static_cast<double>(cells_[i].steps) * o_.spacing; }

  // Shares and gaps of a cell from what is below and above the point of its tangent (docs/accounting.md). In direction add
  // the high end in x is the low end in loss.
  void set_cell(std::size_t i, const Excess& left, const Excess& right) {
    Cell& cell = cells_[i];
    const double w = width(i), tilt = std::exp(o_.tilt * w), share = rise_of(w);
    const double low = left.low + right.low, high = left.high + right.high;
    if (remove_) {
      cell.low = high * std::exp(-w) / share;
      cell.high = low * tilt / share;
      cell.gap_low = left.low;
      cell.gap_high = right.high * tilt;
    } else {
      cell.low = low / share;
      cell.high = high * tilt / share;
      cell.gap_low = right.high;
      cell.gap_high = left.low * std::exp(w) * tilt;
    }
  }

  void mirror() {
    std::reverse(cells_.begin(), cells_.end());
    for (Cell& cell : cells_) cell.place = -(cell.place + cell.steps);
    offset_ = -offset_;
  }

  // The x up to which the gap of the second grid point grows to what it is to the tangent before.
  double matching_point() const {
    const double gap = remove_ ? cells_[0].gap_high : cells_[0].gap_low;
    double inside = from(1), outside = to(1);
    const auto reached = [&](double x) {
      const double low = integrate(1, from(1), x).low;
      return remove_ ? low : low * std::exp(width(1) * (1 + o_.tilt));
    };
    if (!(reached(outside) > gap)) return outside;
    for (int i = 0; i < 20; ++i) {
      const double middle = (inside + outside) / 2;
      (reached(middle) > gap ? outside : inside) = middle;
    }
    return inside;
  }

  // Over x in [from, to] within cell i, times exp(tilt of the low end - log_scale), in direction add also over R(high end).
  // R = 1 - q + q e^g with g = (x - 1/2) / s^2, so R - R(low) = q e^g(low) (e^(g - g(low)) - 1): nothing cancels, and all
  // integrands are entire functions.
  Excess integrate(std::size_t i, double from, double to) const {
    const Edge &low = edges_[i], &high = edges_[i + 1];
    const double constant = (remove_ ? o_.tilt * low.loss : -(1 + o_.tilt) * high.loss) - o_.log_scale - log_norm_;
    const double shrink = std::exp((low.x - high.x) / variance_);
    const double below = std::isinf(low.x) ? std::max(0.0, rest_above(low.loss)) : 0;
    const bool narrow = shrink > 0.3;
    Excess excess;
    const auto add = [&](double x, double weight) {
      const double p = weight * std::exp(constant + log_q_ + ((high.x - 0.5) - x * x / 2) / variance_);
      const double fall = growth_of((x - high.x) / variance_);
      excess.high -= p * fall;
      excess.low += p * (narrow ? shrink * growth_of((x - low.x) / variance_) : fall + 1 - shrink);
      if (below > 0) excess.low += weight * std::exp(constant - x * x / (2 * variance_)) * below;
    };
    while (from < to) {
      // The exponents change by less than 1/2 over a full panel. Five points are exact to rounding over half of one, ten over four
      // (near x = 0 the second derivative counts: six would lose 5e-13, and a composition of 10^15 steps all of its mass).
      const double full = 0.5 * variance_ / (std::abs(from) + 1 + s_), rest = to - from;
      const double panel = std::min(rest, 4 * full);
      const auto walk = [&](const auto& rule) {
        for (const auto& node : rule) add(from + node.at * panel, node.weight * panel);
      };
      if (panel < full / 12) {
        walk(quadrature::kGauss3);
      } else if (panel <= full / 2) {
        walk(quadrature::kGauss5);
      } else {
        walk(quadrature::kGauss10);
      }
      from = from + panel > from ? from + panel : to;
    }
    return excess;
  }

  // 1 - q - exp(loss)
  double rest_above(double loss) const { return q_ < 0.5 ? -q_ - std::expm1(loss) : (1 - q_) - std::exp(loss); }

  double q_, s_;
  bool remove_;
  GridOptions o_;
  SampledLoss loss_;
  double variance_, x_low_, x_high_, log_q_, log_norm_;
  double offset_ = 0;
  double lowest_tangent_ = std::numeric_limits<double>::quiet_NaN();
  std::vector<Edge> edges_;  // in rising order of x, also where the cells are mirrored
  std::vector<Cell> cells_;
};

}  // namespace

GridLoss grid_loss(double sampling_probability, double noise_multiplier, Direction direction, Bound bound,
                   const GridOptions& options) {
  const Discretiser discretiser(sampling_probability, noise_multiplier, direction, bound, options);
  return bound == Bound::upper ? discretiser.upper() : discretiser.lower();
}

}  // namespace hushgrad
