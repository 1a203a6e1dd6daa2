#include "accounting/accountants/cell_grid.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace hushgrad {

double growth_of(double u) {
  if (std::abs(u) > 0.01) return std::expm1(u);
  return u * (1 + u / 2 * (1 + u / 3 * (1 + u / 4 * (1 + u / 5 * (1 + u / 6)))));
}

double rise_of(double u) { return -growth_of(-u); }

namespace {

class Lowering {
 public:
  Lowering(const std::vector<Cell>& cells, double spacing, double tilt)
      : cells_(cells), places_(places_around(cells)), spacing_(spacing), tilt_(tilt) {
    widths_.reserve(cells.size());
    for (const Cell& cell : cells) widths_.push_back(width_of(cell));
  }

  // The masses of the lowered curve over the first `top` cells, before it is made convex. False if the curve would have
  // to become negative.
  bool lowered(std::size_t top, std::vector<double>& masses) const {
    std::vector<double> drop(top + 1, 0);  // how far the curve is lowered at every grid point
    for (std::size_t i = 0; i + 1 < top; ++i) {
      drop[i] = std::max(drop[i], cells_[i].gap_low);
      drop[i + 1] = cells_[i].gap_high;
    }
    // The curve ends at 0 on the last grid point. If the last tangent would pass below, the last line is the axis, so the
    // point before goes down to 0 too. If all losses of the last cell lie at its ends, the tangent is the curve.
    const double to_axis = cells_[top - 1].high / widths_[top - 1].tilt * widths_[top - 1].share;
    if (drop[top - 1] > to_axis) return false;
    const Cell& last = cells_[top - 1];
    const bool ends_on_point = last.gap_high == 0 && last.gap_low < to_axis;
    drop[top - 1] = ends_on_point ? std::max(drop[top - 1], last.gap_low) : to_axis;

    masses.assign(top + 1, 0);
    for (std::size_t i = 0; i < top; ++i) {
      masses[i] = cells_[i].low - (drop[i + 1] / widths_[i].tilt - drop[i]) / widths_[i].grow;
      masses[i] += i == 0 ? drop[0]
                          : cells_[i - 1].high + (drop[i] - drop[i - 1] * widths_[i - 1].tilt) / widths_[i - 1].share;
    }
    const double at_end = last.high - drop[top - 1] * widths_[top - 1].tilt / widths_[top - 1].share;
    masses[top] = ends_on_point ? std::max(at_end, 0.0) : 0;
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
    while (!pending.empty()) {
      const std::ptrdiff_t i = pending.back();
      pending.pop_back();
      const double mass = masses[i];
      if (mass >= 0) continue;
      const std::ptrdiff_t a = previous[i], b = next[i];
      if (b == n) return false;
      const double up = distance(i, b), down = a < 0 ? 0 : distance(a, i);
      // Below the lowest grid point comes likelihood ratio 0, which carries no probability.
      const double to_b = a < 0 ? 1 : std::expm1(-down) / std::expm1(-(up + down));
      masses[i] = 0;
      masses[b] += mass * to_b * std::exp(tilt_ * up);
      if (masses[b] < 0) pending.push_back(b);
      if (a >= 0) {
        masses[a] += mass * (1 - to_b) * std::exp(-tilt_ * down);
        if (masses[a] < 0) pending.push_back(a);
        next[a] = b;
      }
      previous[b] = a;
    }
    return true;
  }

 private:
  struct Width {
    double share, grow, tilt;  // 1 - e^-w, e^w - 1, e^(tilt w)
  };

  Width width_of(const Cell& cell) const {
    if (!widths_.empty() && cells_[widths_.size() - 1].steps == cell.steps) return widths_.back();
    const double w = static_cast<double>(cell.steps) * spacing_;
    return {rise_of(w), growth_of(w), std::exp(tilt_ * w)};
  }
  double distance(std::ptrdiff_t from, std::ptrdiff_t to) const {
    return static_cast<double>(places_[static_cast<std::size_t>(to)] - places_[static_cast<std::size_t>(from)]) * spacing_;
  }

  const std::vector<Cell>& cells_;
  std::vector<std::int64_t> places_;
  std::vector<Width> widths_;
  double spacing_, tilt_;
};

}  // namespace

std::vector<std::int64_t> places_around(const std::vector<Cell>& cells) {
  std::vector<std::int64_t> places;
  places.reserve(cells.size() + 1);
  for (const Cell& cell : cells) places.push_back(cell.place);
  places.push_back(cells.back().place + cells.back().steps);
  return places;
}

std::vector<double> upper_masses(const std::vector<Cell>& cells) {
  std::vector<double> masses(cells.size() + 1, 0);
  for (std::size_t i = 0; i < cells.size(); ++i) {
    masses[i] += cells[i].low;
    masses[i + 1] += cells[i].high;
  }
  return masses;
}

std::vector<double> lower_masses(const std::vector<Cell>& cells, double spacing, double tilt) {
  // The outermost cells may hold too little for a convex curve; leaving them out only lowers the curve.
  const Lowering lowering(cells, spacing, tilt);
  std::vector<double> masses;
  std::size_t top = cells.size();
  while (top > 1 && cells[top - 1].high == 0) --top;
  for (int attempt = 0; top >= 2; top -= attempt++ < 8 ? 1 : std::max<std::size_t>(1, top / 64)) {
    if (lowering.lowered(top, masses) && lowering.eliminate_negative(masses)) return masses;
  }
  return {0};
}

}  // namespace hushgrad
