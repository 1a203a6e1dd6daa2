#include "accounting/accountants/step.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "accounting/accountants/loss.h"

namespace hushgrad {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kLogSqrt2Pi = 0.91893853320467274178;
// Points whose weight is below e^-kFaint of the largest do not steer.
constexpr double kFaint = 50;

// log of the density of losses around every point of an outline.
std::vector<double> densities(const LossOutline& outline) {
  const std::size_t n = outline.losses.size();
  std::vector<double> result(n, kInfinity);
  for (std::size_t i = 0; n > 1 && i < n; ++i) {
    const std::size_t a = i == 0 ? 0 : i - 1, b = i + 1 == n ? i : i + 1;
    const double width = std::abs(outline.losses[b] - outline.losses[a]) / static_cast<double>(b - a);
    result[i] = width > 0 ? outline.log_p[i] - std::log(width) : kInfinity;
  }
  return result;
}

// The released values that the grid of a sampled step covers end here.
double highest_of(const SampledLoss& loss, double s, Direction direction, Reach reach) {
  if (direction == Direction::add) return reach.high(s);
  return std::min(reach.high(s), std::max(loss.inverse(reach.cut), 2 * s));
}

}  // namespace

LossOutline Step::outline(Direction direction, Reach reach) const {
  if (pair) return pair_outline(*pair, direction, -reach.around * reach.around / 2);
  const SampledLoss loss(q, s);
  const double low = reach.low(s), high = highest_of(loss, s, direction, reach);
  const int n = static_cast<int>(std::clamp(4 * (high - low) / s, 100.0, 4000.0));
  const double log_width = std::log((high - low) / n / s);
  LossOutline outline;
  outline.losses.reserve(static_cast<std::size_t>(n + 1));
  outline.log_p.reserve(static_cast<std::size_t>(n + 1));
  for (int i = 0; i <= n; ++i) {
    const double x = low + (high - low) * i / n, l = loss(x);
    const double log_p = -x * x / (2 * s * s) - kLogSqrt2Pi + log_width;
    outline.losses.push_back(direction == Direction::remove ? l : -l);
    outline.log_p.push_back(direction == Direction::remove ? log_p + l : log_p);
  }
  return outline;
}

double Step::end(Direction direction) const {
  const double end = pair ? pair->centre() : SampledLoss(q, s).lowest();
  return direction == Direction::remove ? end : -end;
}

LossRange Step::range(Direction direction, Reach reach) const {
  const SampledLoss loss(q, s);
  const LossRange range = pair ? pair->range(-reach.around * reach.around / 2) : LossRange{loss(reach.low(s)), loss(highest_of(loss, s, direction, reach))};
  return direction == Direction::remove ? range : LossRange{-range.high, -range.low};
}

GridLoss Step::grid(Direction direction, Bound bound, const GridOptions& options) const {
  return pair ? pair_grid(*pair, direction, bound, options) : grid_loss(q, s, direction, bound, options);
}

std::vector<Step> steps_of(const Spending& spending) {
  std::vector<Step> steps;
  for (const SampledGaussian& step : spending.sampled) {
    steps.push_back({step.sampling_probability, step.noise_multiplier, step.count, nullptr});
  }
  for (const PairSteps& step : spending.pairs) steps.push_back({1, 1, step.count, step.pair});
  if (spending.mu_squared > 0) steps.push_back({1, 1 / std::sqrt(spending.mu_squared), 1, nullptr});
  return steps;
}

double total_count(const std::vector<Step>& steps) {
  double total = 0;
  for (const Step& step : steps) total += step.count;
  return total;
}

double expected_draws(const std::vector<Step>& steps) {
  double total = 0;
  for (const Step& step : steps) total += step.count * step.q;
  return total;
}

Cumulant::Cumulant(const std::vector<Step>& steps, Direction direction, Reach reach) {
  for (const Step& step : steps) {
    LossOutline outline = step.outline(direction, reach);
    std::vector<double> log_density = densities(outline);
    parts_.push_back({step.count, step.end(direction), std::move(outline.losses), std::move(outline.log_p),
                      std::move(log_density)});
  }
}

Cumulant::Value Cumulant::at(double tilt) const {
  Value total{0, 0, 0};
  for (const Part& part : parts_) {
    double largest = -kInfinity;
    for (std::size_t i = 0; i < part.losses.size(); ++i) {
      largest = std::max(largest, part.log_p[i] + tilt * part.losses[i]);
    }
    double sum = 0, first = 0, second = 0;
    for (std::size_t i = 0; i < part.losses.size(); ++i) {
      const double exponent = part.log_p[i] + tilt * part.losses[i] - largest;
      if (exponent < -kFaint) continue;
      const double p = std::exp(exponent);
      sum += p;
      first += p * part.losses[i];
      second += p * part.losses[i] * part.losses[i];
    }
    const double mean = first / sum;
    total.k += part.count * (largest + std::log(sum));
    total.mean += part.count * mean;
    total.variance += part.count * std::max(second / sum - mean * mean, 1e-14 * mean * mean + 1e-300);
  }
  return total;
}

std::vector<double> Cumulant::parts_at(double tilt) const {
  std::vector<double> result;
  for (const Part& part : parts_) {
    double largest = -kInfinity, sum = 0;
    for (std::size_t i = 0; i < part.losses.size(); ++i) {
      largest = std::max(largest, part.log_p[i] + tilt * part.losses[i]);
    }
    for (std::size_t i = 0; i < part.losses.size(); ++i) {
      const double exponent = part.log_p[i] + tilt * part.losses[i] - largest;
      if (exponent >= -kFaint) sum += std::exp(exponent);
    }
    result.push_back(largest + std::log(sum));
  }
  return result;
}

// Moving an outcome at distance u above a grid point onto its neighbours raises E[exp(tilt * loss)] by
// tilt (1 + tilt) u (w - u) / 2. Where most of the mass is next to nothing away from the grid point at the end of the
// losses, that is far below tilt (1 + tilt) w^2 / 8.
double Cumulant::shift(double tilt, const std::vector<double>& at_tilt, double slope, const Fineness& fineness) const {
  double total = 0;
  for (std::size_t k = 0; k < parts_.size(); ++k) {
    const Part& part = parts_[k];
    const double log_fine = fineness.log_fine - std::log(part.count);
    double moved = 0;
    for (std::size_t i = 0; i < part.losses.size(); ++i) {
      const double tilted = tilt * part.losses[i] - at_tilt[k], exponent = part.log_p[i] + tilted;
      if (exponent < -kFaint) continue;
      const double thin = (log_fine - part.log_density[i] - tilted) / 3;
      const double wider = thin > 0 ? std::max(1.0, std::min(std::exp(thin), fineness.widest / fineness.spacing)) : 1;
      const double width = fineness.spacing * wider;
      moved += std::exp(exponent) * width * std::min(std::abs(part.losses[i] - part.end), width / 4);
    }
    total += part.count * moved;
  }
  return (1 + slope) / 2 * total;
}

}  // namespace hushgrad
