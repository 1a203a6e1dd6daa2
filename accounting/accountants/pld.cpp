#include "accounting/accountants/pld.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "accounting/accountants/closed_form.h"
#include "accounting/accountants/composition.h"
#include "accounting/accountants/gap.h"
#include "accounting/accountants/gaussian.h"
#include "accounting/accountants/rdp.h"
#include "accounting/accountants/root.h"
#include "dpcore/error.h"

namespace hushgrad {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kSmallest = std::numeric_limits<double>::min();
constexpr double kRootTolerance = 1e-7;

bool one_step(const Spending& spending) {
  return spending.mu_squared == 0 && spending.pairs.empty() && spending.sampled.size() == 1 &&
         spending.sampled[0].count == 1;
}

// One run of a pair whose delta is known in closed form.
const LossPair* lone_pair(const Spending& spending) {
  const bool lone = spending.mu_squared == 0 && spending.sampled.empty() && spending.pairs.size() == 1 && spending.pairs[0].count == 1;
  return lone && spending.pairs[0].pair->log_delta(0) ? spending.pairs[0].pair.get() : nullptr;
}

Interval lone_pair_epsilon(const LossPair& pair, double delta) {
  const LossRange range = pair.range(std::log(delta));
  return solve_epsilon([&](double e) { return *pair.log_delta(e); }, std::max(0.0, range.high / 2), delta);
}

Spending protected_part(Spending spending) {
  spending.log_unexposed = 0;
  return spending;
}

// The probability that the sample is ever used. If it is not, nothing depends on it, so delta is at most this at any
// epsilon >= 0.
double ever_used(const Spending& spending) {
  if (spending.mu_squared > 0) return 1;
  double log_unused = 0;
  for (const SampledGaussian& step : spending.sampled) {
    log_unused += step.count * std::log1p(-step.sampling_probability);
  }
  for (const PairSteps& step : spending.pairs) log_unused += step.count * std::log1p(-step.pair->used());
  return std::min(1.0, -std::expm1(log_unused) * (1 + 1e-12));
}

// What a single part already spends: a composition is never more private than its parts.

double largest_part_epsilon(const Spending& spending, double delta) {
  double lower = spending.mu_squared > 0 ? gaussian_epsilon(spending.mu_squared, delta).lower : 0;
  for (const SampledGaussian& step : spending.sampled) {
    lower = std::max(lower, sampled_gaussian_epsilon(step.sampling_probability, step.noise_multiplier, delta).lower);
  }
  return lower;
}

double largest_part_delta(const Spending& spending, double epsilon) {
  double lower = spending.mu_squared > 0 ? gaussian_delta(spending.mu_squared, epsilon).lower : 0;
  for (const SampledGaussian& step : spending.sampled) {
    lower = std::max(lower, sampled_gaussian_delta(step.sampling_probability, step.noise_multiplier, epsilon).lower);
  }
  return lower;
}

enum class Ends { both, upper };

// A pair that is known by an upper bound only leaves the ends apart, however fine the grid.
bool all_tight(const Spending& spending) {
  return std::all_of(spending.pairs.begin(), spending.pairs.end(), [](const PairSteps& s) { return s.pair->tight(); });
}

struct Bounds {
  Interval interval;
  bool coarse;
};

Crossing crossing(const Composition& composition, const Window& window, double guess, double log_delta) {
  return find_crossing([&](double e) { return composition.log_delta(e) - log_delta; }, guess,
                       1e-3 * window.deviation + 1e-3 / window.tilt, kRootTolerance);
}

// Where a grid leaves the upper end open (a delta below what it leaves out), or cannot close on the lower one anyway: as if
// nothing amplified.
bool may_be_loose(const Spending& spending, bool coarse) { return coarse || !all_tight(spending); }

double unamplified_epsilon(const Spending& spending, double delta) {
  const double mu_squared = unamplified_mu_squared(spending);
  return mu_squared < kInfinity ? gaussian_epsilon(mu_squared, delta).upper : kInfinity;
}

double unamplified_delta(const Spending& spending, double epsilon) {
  const double mu_squared = unamplified_mu_squared(spending);
  return mu_squared < kInfinity ? gaussian_delta(mu_squared, epsilon).upper : 1;
}

// How far the ends may be apart before a finer grid is tried, and how often.
constexpr double kWidthWanted = 8e-4;
constexpr double kLogWidthWanted = 0.02;
constexpr int kRefinements = 4;
// Losses far above epsilon are kept apart from the grid if no more than this share of their range is left then: at once, and
// where the ends are too far apart.
constexpr double kWorthCutting = 0.25;
constexpr double kWorthCuttingLater = 0.9;

bool is_cut(const Window& window) { return window.reach.cut < kInfinity; }

// Jumps of the loss (Laplace) keep the ends apart on every grid.
int refinements_of(const Spending& spending) { return spending.pairs.empty() ? kRefinements : 1; }

// Bounds of the epsilon of one direction; {0, infinity} where no grid fits.
Bounds direction_epsilon(const Spending& spending, Direction direction, double log_delta, Ends ends) {
  auto window = window_at_delta(spending, direction, log_delta);
  Bounds best{{0, kInfinity}, true};
  int refinements = 0;
  double width_before = kInfinity;
  for (int attempt = 0; window; ++attempt) {
    const Composition upper(spending, direction, Bound::upper, *window);
    const double above = crossing(upper, *window, window->epsilon, log_delta).above;
    // A window looks sharply only near its centre, and its grid is as fine as the epsilon there asks for.
    const bool off = std::abs(above - window->epsilon) > window->deviation || above < 0.7 * window->epsilon ||
                     above > 1.5 * window->epsilon;
    best.interval.upper = std::min(best.interval.upper, above);
    if (attempt < 4 && refinements == 0 && above < kInfinity && (off || window->uncut < kWorthCutting)) {
      const bool cut = is_cut(*window) || window->uncut < kWorthCutting;
      window = cut ? cut_window(spending, direction, above, log_delta) : window_at_epsilon(spending, direction, above, log_delta);
      continue;
    }
    best.coarse = window->coarse || best.interval.upper == kInfinity;
    if (above == 0 || ends == Ends::upper) return best;
    const Composition lower(spending, direction, Bound::lower, *window);
    const double guess = above < kInfinity ? above : window->epsilon;
    best.interval.lower = std::max(best.interval.lower, crossing(lower, *window, guess, log_delta).below);
    best.interval.lower = std::min(best.interval.lower, best.interval.upper);
    const double width = best.interval.upper - best.interval.lower;
    if (!(width > kWidthWanted * best.interval.upper) || refinements == refinements_of(spending) || !all_tight(spending)) return best;
    if (width > 0.8 * width_before) return best;  // something else than the grid keeps the ends apart
    if (!is_cut(*window) && window->uncut < kWorthCuttingLater) {
      window = cut_window(spending, direction, best.interval.upper, log_delta);
      continue;
    }
    width_before = width;
    ++refinements;
    window = finer_window(*window, best.interval.upper, width, upper.transformed() || lower.transformed());
  }
  return best;
}

// Without its sample a step cannot be more than 1 / (1 - q) times as likely.
bool out_of_reach(const Spending& spending, Direction direction, double epsilon) {
  if (direction == Direction::remove || spending.mu_squared > 0 || !spending.pairs.empty()) return false;
  double largest = 0;
  for (const SampledGaussian& step : spending.sampled) {
    largest -= step.count * std::log1p(-step.sampling_probability);
  }
  return epsilon > largest * (1 + 1e-9);
}

struct LogDeltaBounds {
  double lower, upper;
  bool coarse;
};

LogDeltaBounds direction_log_delta(const Spending& spending, Direction direction, double epsilon, Ends ends) {
  if (out_of_reach(spending, direction, epsilon)) return {-kInfinity, -kInfinity, false};
  LogDeltaBounds best{-kInfinity, 0, true};
  int refinements = 0;
  double width_before = kInfinity;
  bool recentred = false;
  for (auto window = window_at_epsilon(spending, direction, epsilon); window;) {
    const double upper = Composition(spending, direction, Bound::upper, *window).log_delta(epsilon);
    best.upper = std::min(best.upper, upper);
    // The window was chosen for another delta; its grid and period may not suit this one.
    const bool cut = window->uncut < kWorthCutting;
    if (!recentred && best.upper < 0 && (cut || std::abs(best.upper - window->log_delta) > 1)) {
      recentred = true;
      const double log_delta = std::max(best.upper, -700.0);
      window = cut ? cut_window(spending, direction, epsilon, log_delta) : window_at_epsilon(spending, direction, epsilon, log_delta);
      continue;
    }
    best.coarse = window->coarse || best.upper == 0;
    if (ends == Ends::upper) return best;
    const Composition below(spending, direction, Bound::lower, *window);
    best.lower = std::min(std::max(best.lower, below.log_delta(epsilon)), best.upper);
    const double width = best.upper - best.lower;
    if (!(width > kLogWidthWanted) || refinements == refinements_of(spending) || !all_tight(spending)) return best;
    if (width > 0.8 * width_before) return best;
    if (!is_cut(*window) && window->uncut < kWorthCuttingLater) {
      window = cut_window(spending, direction, epsilon, std::max(best.upper, -700.0));
      continue;
    }
    width_before = width;
    ++refinements;
    window = finer_window(*window, 1, 0.02 * width, below.transformed());
  }
  return best;
}

// These two need several steps, some of them sampled.

Interval composed_epsilon(const Spending& spending, double delta, Ends ends) {
  if (ever_used(spending) <= delta) return {0, 0};
  const double log_delta = std::log(delta);
  Bounds bounds = direction_epsilon(spending, Direction::remove, log_delta, ends);
  // Nearly always `remove` is the worse direction; then one look at the other suffices.
  if (bounds.interval.upper < kInfinity &&
      direction_log_delta(spending, Direction::add, bounds.interval.upper, Ends::upper).upper > log_delta) {
    const Bounds add = direction_epsilon(spending, Direction::add, log_delta, ends);
    bounds.coarse |= add.coarse;
    bounds.interval.lower = std::max(bounds.interval.lower, add.interval.lower);
    bounds.interval.upper = std::max(bounds.interval.upper, add.interval.upper);
  }
  if (bounds.coarse && ends == Ends::both) {
    bounds.interval.lower = std::max(bounds.interval.lower, largest_part_epsilon(spending, delta));
  }
  if (bounds.coarse) bounds.interval.upper = std::min(bounds.interval.upper, rdp_epsilon(spending, delta));
  if (may_be_loose(spending, bounds.coarse)) {
    bounds.interval.upper = std::min(bounds.interval.upper, unamplified_epsilon(spending, delta));
  }
  return {std::min(bounds.interval.lower, bounds.interval.upper), bounds.interval.upper};
}

Interval composed_delta(const Spending& spending, double epsilon, Ends ends) {
  const auto remove = direction_log_delta(spending, Direction::remove, epsilon, ends);
  auto add = direction_log_delta(spending, Direction::add, epsilon, Ends::upper);
  if (ends == Ends::both && add.upper > remove.lower) add = direction_log_delta(spending, Direction::add, epsilon, ends);
  const bool coarse = remove.coarse || (add.coarse && add.upper > remove.upper);
  double upper = std::clamp(std::exp(std::max(remove.upper, add.upper)), kSmallest, ever_used(spending));
  if (coarse) upper = std::min(upper, rdp_delta(spending, epsilon));
  if (may_be_loose(spending, coarse)) upper = std::min(upper, unamplified_delta(spending, epsilon));
  if (ends == Ends::upper) return {0, upper};
  double lower = std::exp(std::max(remove.lower, add.lower));
  if (coarse) lower = std::max(lower, largest_part_delta(spending, epsilon));
  return {std::min(lower, upper), upper};
}

Interval epsilon_of(const Spending& spending, double delta, Ends ends) {
  if (spending.nothing()) return {0, 0};
  if (spending.log_unexposed < 0) {
    const bool exposed = !spending.rounded_up && -std::expm1(spending.log_unexposed) > delta;
    return {exposed ? kInfinity : epsilon_of(protected_part(spending), delta, ends).lower, kInfinity};
  }
  Interval bounds;
  if (!spending.selections.empty()) {
    // Known by Renyi divergences alone; without its selections a composition is a lower bound.
    Spending rest = spending;
    rest.selections.clear();
    bounds = {epsilon_of(rest, delta, ends).lower, rdp_epsilon(spending, delta)};
  } else if (spending.only_gaussian()) {
    bounds = gaussian_epsilon(spending.mu_squared, delta);
  } else if (one_step(spending)) {
    const SampledGaussian& step = spending.sampled[0];
    bounds = sampled_gaussian_epsilon(step.sampling_probability, step.noise_multiplier, delta);
  } else if (const LossPair* pair = lone_pair(spending)) {
    bounds = lone_pair_epsilon(*pair, delta);
  } else {
    bounds = composed_epsilon(spending, delta, ends);
  }
  return {spending.rounded_up ? 0 : bounds.lower, bounds.upper};
}

Interval delta_of(const Spending& spending, double epsilon, Ends ends) {
  if (spending.nothing()) return {0, 0};
  if (spending.log_unexposed < 0) {
    const double exposed = spending.rounded_up ? 0 : -std::expm1(spending.log_unexposed);
    return {std::max(exposed, delta_of(protected_part(spending), epsilon, ends).lower), 1};
  }
  if (epsilon == kInfinity) return {0, 0};
  Interval bounds;
  if (!spending.selections.empty()) {
    Spending rest = spending;
    rest.selections.clear();
    bounds = {delta_of(rest, epsilon, ends).lower, rdp_delta(spending, epsilon)};
  } else if (spending.only_gaussian()) {
    bounds = gaussian_delta(spending.mu_squared, epsilon);
  } else if (one_step(spending)) {
    const SampledGaussian& step = spending.sampled[0];
    bounds = sampled_gaussian_delta(step.sampling_probability, step.noise_multiplier, epsilon);
  } else if (const LossPair* pair = lone_pair(spending)) {
    bounds = delta_interval(*pair->log_delta(epsilon));
  } else {
    bounds = composed_delta(spending, epsilon, ends);
  }
  return {spending.rounded_up ? 0 : bounds.lower, bounds.upper};
}

void expect_composition(const Spending& spending) {
  if (spending.log_unexposed == 0 && spending.selections.empty() && !spending.has_gap()) return;
  throw InvalidArgument("[pld] Expected a composition of steps with noise alone, received exposures, selections or finite "
                        "precision. Directions of those have no bounds of their own: ask pld_epsilon or pld_delta.");
}

}  // namespace

Interval pld_direction_epsilon(const Spending& spending, double delta, Direction direction) {
  expect_composition(spending);
  if (ever_used(spending) <= delta) return {0, 0};
  return direction_epsilon(spending, direction, std::log(delta), Ends::both).interval;
}

Interval pld_direction_delta(const Spending& spending, double epsilon, Direction direction) {
  expect_composition(spending);
  const LogDeltaBounds bounds = direction_log_delta(spending, direction, epsilon, Ends::both);
  return {std::exp(bounds.lower), std::exp(bounds.upper)};
}

Interval pld_epsilon(const Spending& spending, double delta) {
  return with_gap_epsilon(spending, delta, [](const Spending& s, double at) { return epsilon_of(s, at, Ends::both); });
}

Interval pld_delta(const Spending& spending, double epsilon) {
  return with_gap_delta(spending, epsilon, [](const Spending& s, double at) { return delta_of(s, at, Ends::both); });
}

double pld_epsilon_upper(const Spending& spending, double delta) {
  return with_gap_epsilon_upper(spending, delta, [](const Spending& s, double at) { return epsilon_of(s, at, Ends::upper); });
}

double pld_delta_upper(const Spending& spending, double epsilon) {
  return with_gap_delta_upper(spending, epsilon, [](const Spending& s, double at) { return delta_of(s, at, Ends::upper); });
}

Interval PldAccountant::epsilon(const Event& event, double delta, Adjacency adjacency) const {
  return pld_epsilon(flatten(event, adjacency), delta);
}

Interval PldAccountant::delta(const Event& event, double epsilon, Adjacency adjacency) const {
  return pld_delta(flatten(event, adjacency), epsilon);
}

}  // namespace hushgrad
