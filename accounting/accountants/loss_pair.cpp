#include "accounting/accountants/loss_pair.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <mutex>

#include "accounting/accountants/cell_grid.h"

namespace hushgrad {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kUlp = std::numeric_limits<double>::epsilon();
// Probabilities of outcomes are right up to this factor: quadrature, or a few hundred roundings.
constexpr double kOutcomeError = 1e-12;

// The same pair seen from the other side: Q first, losses negated.
Outcomes swapped(Outcomes outcomes) {
  for (Outcome& one : outcomes.list) {
    const double loss = outcomes.offset + static_cast<double>(one.place) * outcomes.spacing + one.above;
    one = {-one.place - 1, outcomes.spacing - one.above, one.log_q + loss};
  }
  outcomes.offset = -outcomes.offset;
  std::reverse(outcomes.list.begin(), outcomes.list.end());
  std::swap(outcomes.low_p, outcomes.high_q);
  std::swap(outcomes.low_q, outcomes.high_p);
  return outcomes;
}

// On a grid with a point on the pair's centre, or with `parts` cells for each of that grid.
Outcomes seen_from(const LossPair& pair, Direction direction, double spacing, int parts, double log_rest) {
  Outcomes outcomes = pair.outcomes(spacing / parts, std::fmod(pair.centre(), spacing), log_rest);
  return direction == Direction::remove ? outcomes : swapped(std::move(outcomes));
}

double loss_of(const Outcomes& outcomes, const Outcome& one) {
  return outcomes.offset + static_cast<double>(one.place) * outcomes.spacing + one.above;
}

// A loss next to a grid point counts as on it; grid.loss_error covers that.
double snapped(double above, double spacing, double low) {
  const double rounding = 8 * kUlp * std::max(std::abs(low), spacing);
  if (above < rounding) return 0;
  return above > spacing - rounding ? spacing : above;
}

// An outcome within its cell of the grid: u in [0, h] above the low end, tilted probability p with the tilt of the low end.
struct Located {
  std::int64_t place;
  double u, p;
};

// Losses on a grid point count as the high end of the cell below.
std::vector<Located> located(const Outcomes& outcomes, double h, int parts, const GridOptions& options) {
  std::vector<Located> list;
  list.reserve(outcomes.list.size());
  for (const Outcome& one : outcomes.list) {
    std::int64_t place = (one.place >= 0 ? one.place : one.place - (parts - 1)) / parts;
    double low = outcomes.offset + static_cast<double>(place) * h;
    double u = snapped(static_cast<double>(one.place - parts * place) * (h / parts) + one.above, h, low);
    if (u == 0) {
      --place;
      low -= h;
      u = h;
    }
    list.push_back({place, u, std::exp(one.log_q + loss_of(outcomes, one) + options.tilt * low - options.log_scale)});
  }
  return list;
}

std::vector<Cell> cells_of(const std::vector<Located>& list, const GridOptions& options) {
  const double h = options.spacing, share = -std::expm1(-h), step_tilt = std::exp(options.tilt * h);
  std::int64_t first = list[0].place, last = first;
  for (const Located& one : list) {
    first = std::min(first, one.place);
    last = std::max(last, one.place);
  }
  const bool ends_on_point =
      std::any_of(list.begin(), list.end(), [&](const Located& one) { return one.place == last && one.u == h; });
  std::vector<Cell> cells(static_cast<std::size_t>(last - first + 1));
  for (std::size_t i = 0; i < cells.size(); ++i) cells[i].place = first + static_cast<std::int64_t>(i);
  for (const Located& one : list) {
    Cell& cell = cells[static_cast<std::size_t>(one.place - first)];
    const double rise = rise_of(one.u), rest = rise_of(h - one.u);
    cell.low += one.p * std::max(0.0, 1 - rise / share);
    cell.high += one.p * rise / share * step_tilt;
    // The tangent touches the curve in the middle of the cell; in the last one just below what sits at its high end.
    const bool below = one.place == last && ends_on_point ? one.u < h : one.u < h / 2;
    (below ? cell.gap_low : cell.gap_high) += below ? one.p * rise : one.p * rest / (1 - rest) * step_tilt;
  }
  return cells;
}

}  // namespace

GridLoss pair_grid(const LossPair& pair, Direction direction, Bound bound, const GridOptions& options) {
  const double h = options.spacing;
  GridLoss grid;
  grid.log_scale = options.log_scale;
  grid.places.assign(1, 0);
  grid.masses.assign(1, 0);
  if (bound == Bound::lower && !pair.tight()) return grid;
  // Downward, what a half cell holds is taken together first (post-processing), so that a tangent can pass between.
  const int parts = bound == Bound::lower ? 2 : 1;
  const Outcomes outcomes = seen_from(pair, direction, h, parts, -options.reach.around * options.reach.around / 2);
  grid.infinite = outcomes.high_p;
  if (outcomes.list.empty()) return grid;
  const std::vector<Cell> cells = cells_of(located(outcomes, h, parts, options), options);
  grid.offset = outcomes.offset;
  grid.masses = bound == Bound::upper ? upper_masses(cells) : lower_masses(cells, h, options.tilt);
  grid.places = places_around(cells);
  grid.places.resize(grid.masses.size());
  if (bound == Bound::upper) {
    // What was left out below lies below the lowest loss here, so not above the second grid point.
    grid.masses[1] += outcomes.low_p * std::exp(options.tilt * grid.loss(1, h) - options.log_scale);
  }
  const double largest = std::max(std::abs(static_cast<double>(cells.front().place)),
                                  std::abs(static_cast<double>(cells.back().place + 1))) * h;
  grid.loss_error = 16 * kUlp * largest + pair.loss_rounding();
  grid.relative_error = kOutcomeError + 4 * kUlp * (std::abs(options.log_scale) + (1 + options.tilt) * largest);
  return grid;
}

LossOutline pair_outline(const LossPair& pair, Direction direction, double log_rest) {
  const LossRange range = pair.range(log_rest);
  const double spacing = std::max((range.high - range.low) / 1000, 1e-9);
  const Outcomes outcomes = seen_from(pair, direction, spacing, 1, log_rest);
  LossOutline outline;
  std::int64_t place = 0;
  for (const Outcome& one : outcomes.list) {
    const double loss = loss_of(outcomes, one), log_p = one.log_q + loss;
    // Outcomes of one cell (a wide discrete Gaussian has millions) steer as one, at the loss of the heavier.
    if (!outline.losses.empty() && one.place == place) {
      double& gathered = outline.log_p.back();
      if (log_p > gathered) outline.losses.back() = loss;
      gathered = std::max(gathered, log_p) + std::log1p(std::exp(-std::abs(gathered - log_p)));
      continue;
    }
    place = one.place;
    outline.losses.push_back(loss);
    outline.log_p.push_back(log_p);
  }
  if (outline.losses.empty()) outline = {{0}, {0}};
  return outline;
}

namespace {

// The outcomes of a pair moved up onto a fine grid, kept for the many orders that are asked one after the other.
struct FineGrid {
  GridLoss remove, add;
  std::vector<double> log_remove, log_add;  // of the masses
  double spacing;
};

std::vector<double> logs_of(const std::vector<double>& masses) {
  std::vector<double> logs;
  logs.reserve(masses.size());
  for (double mass : masses) logs.push_back(std::log(mass));
  return logs;
}

std::shared_ptr<const FineGrid> fine_grid(const LossPair& pair) {
  static std::mutex mutex;
  static std::map<std::string, std::shared_ptr<const FineGrid>> known;
  constexpr double kReach = 16;
  const std::string key = pair.key();
  {
    const std::lock_guard lock(mutex);
    if (auto it = known.find(key); it != known.end()) return it->second;
  }
  const LossRange range = pair.range(-kReach * kReach / 2);
  auto grid = std::make_shared<FineGrid>();
  grid->spacing = std::clamp((range.high - range.low) / 8000, 1e-9, 0.5);
  const GridOptions options{grid->spacing, 0, kReach, 0};
  grid->remove = pair_grid(pair, Direction::remove, Bound::upper, options);
  grid->add = pair_grid(pair, Direction::add, Bound::upper, options);
  grid->log_remove = logs_of(grid->remove.masses);
  grid->log_add = logs_of(grid->add.masses);
  const std::lock_guard lock(mutex);
  if (known.size() > 64) known.clear();
  known[key] = grid;
  return grid;
}

double grid_rdp(const GridLoss& grid, const std::vector<double>& logs, double spacing, double order) {
  // log E[exp((order - 1) loss)] with the 1 subtracted before rounding; the masses add up to at most 1.
  double largest = 0;
  const auto loss_at = [&](std::size_t i) { return grid.loss(i, spacing); };
  for (std::size_t i = 0; i < grid.masses.size(); ++i) {
    if (grid.masses[i] > 0) largest = std::max(largest, (order - 1) * loss_at(i) + logs[i]);
  }
  double sum = 0;
  for (std::size_t i = 0; i < grid.masses.size(); ++i) {
    const double exponent = (order - 1) * loss_at(i);
    if (largest <= 30) {
      sum += grid.masses[i] * std::expm1(exponent);
    } else if (exponent + logs[i] > largest - 45) {
      sum += std::exp(exponent + logs[i] - largest);
    } else {
      sum += 1e-19;  // more than it is
    }
  }
  const double log_moment = largest > 30 ? largest + std::log(sum) : std::log1p(std::max(sum, 0.0));
  return (log_moment + 1e-13 + grid.relative_error + (order - 1) * grid.loss_error) / (order - 1);
}

}  // namespace

RenyiBound pair_rdp(const LossPair& pair, double order) {
  const auto grid = fine_grid(pair);
  const double divergence = std::max(grid_rdp(grid->remove, grid->log_remove, grid->spacing, order),
                                     grid_rdp(grid->add, grid->log_add, grid->spacing, order));
  return {std::isnan(divergence) ? kInfinity : std::max(divergence, 0.0),
          std::max(grid->remove.infinite, grid->add.infinite)};
}

}  // namespace hushgrad
