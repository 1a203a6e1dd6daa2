#include "accounting/accountants/window.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "accounting/accountants/step.h"
#include "accounting/accountants/undershoot.h"

namespace hushgrad {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kLogSqrt2Pi = 0.91893853320467274178;

// Wanted distance between the upper and the lower end, relative to epsilon.
constexpr double kRelativeWidth = 4e-4;
// Wrapped-around mass, and outcomes beyond reach, may change the tilted sum or delta by e^-this.
constexpr double kWrapped = 20;
constexpr double kBeyondReach = 10;
// Rounding of the transform may grow by e^kAmplified, relative to delta.
constexpr double kAmplified = 14;
// Where many steps leave few frequencies to look at, a long transform is never computed in full.
constexpr double kLargestLength = 1 << 20;
constexpr double kLargestLengthOfMany = 1 << 22;
constexpr double kMany = 1000;
constexpr double kLongerWithoutTransform = 4;
constexpr double kLargestCells = 1 << 20;
constexpr double kTiltCells = 1 << 14;
constexpr double kSmallestNoise = 0.02;
// The share of the wanted width that cells of one spacing take; wider ones in the tails take the rest.
constexpr double kNarrowShare = 0.6;
// The other losses of a composition fall further below zero than is allowed for with probability e^-this at most.
constexpr double kUndershoot = 20;
constexpr double kUndershootMargin = 1.5;
constexpr double kCutMargin = 0.05;  // of epsilon, at least

// Where a record is rarely drawn, a composition has epsilon next to nothing, and a single draw can have a loss of several. An
// outcome with one loss above this has more than epsilon in all, unless all others together fall far below zero: it counts in
// full, and needs no place on a grid.
struct Cut {
  double loss = kInfinity, rest_tilt = 0;
};

Cut cut_for(const std::vector<Step>& steps, Direction direction, double epsilon) {
  if (direction == Direction::add) return {};
  const Undershoot below = undershoot(steps, -kUndershoot);
  return {epsilon + std::max(kUndershootMargin * below.depth, kCutMargin * epsilon), below.tilt};
}

// The widest spacing whose shift is affordable.
double spacing_for(const Cumulant& cumulant, double tilt, const std::vector<double>& at_tilt, double slope,
                   double affordable, double smallest) {
  double low = std::log(smallest), high = std::log(0.1 / (1 + slope));
  if (!(low < high)) return std::exp(high);
  for (int i = 0; i < 16; ++i) {
    const double middle = (low + high) / 2;
    (cumulant.shift(tilt, at_tilt, slope, {std::exp(middle), -kInfinity, 0}) < affordable ? low : high) = middle;
  }
  return std::exp(low);
}

// Lets points lie further apart where the losses are thin, as far as that is affordable.
void widen_tails(Window& window, const Cumulant& cumulant, const std::vector<double>& at_tilt, double slope,
                 double affordable) {
  // One draw in a wide cell moves epsilon by slope * width^2 / 8 where it decides alone.
  window.widest = std::min(std::sqrt(4 * affordable / (1 + slope)), 0.3 / (1 + window.tilt));
  const double narrow = cumulant.shift(window.tilt, at_tilt, slope, {window.spacing, -kInfinity, 0});
  affordable = std::max(affordable, 1.3 * narrow);
  double low = -80, high = 80;
  for (int i = 0; i < 12; ++i) {
    const double middle = (low + high) / 2;
    (cumulant.shift(window.tilt, at_tilt, slope, {window.spacing, middle, window.widest}) < affordable ? low : high) = middle;
  }
  window.log_fine = low;
}

// The next smaller spacing at which the grid passes through the jumps of a lone pair.
double on_lattice(const std::vector<Step>& steps, double spacing) {
  const double lattice = steps.size() == 1 && steps[0].pair ? steps[0].pair->lattice() : 0;
  if (!(lattice > 0)) return spacing;
  return lattice < spacing ? lattice * std::floor(spacing / lattice) : lattice / std::ceil(lattice / spacing * (1 - 1e-12));
}

double mills_ratio(double t) {
  if (t > 20) return (1 - 1 / (t * t) + 3 / (t * t * t * t)) / t;
  return 1.2533141373155002512 * std::exp(t * t / 2) * std::erfc(t * 0.70710678118654752440);
}

// log delta at the mean of the tilted sum, if that sum were normal (the first term of a saddle-point expansion).
double normal_log_delta(const Cumulant::Value& value, double tilt) {
  const double d = std::sqrt(value.variance), t = tilt * d;
  const double slope = t > 20 ? 1 / (t * t) : 1 - t * mills_ratio(t);
  const double difference = d < 1e-3 * (1 + t) ? d * slope : mills_ratio(t) - mills_ratio(t + d);
  return value.k - tilt * value.mean + std::log(std::max(difference, 1e-300)) - kLogSqrt2Pi;
}

// The tilt at which a function of it, rising or falling, reaches a target; only a starting point.
template <typename Function>
double find_tilt(Function&& is_below) {
  double low = std::log(1e-9), high = std::log(1e18);
  for (int i = 0; i < 45; ++i) {
    const double middle = (low + high) / 2;
    (is_below(std::exp(middle)) ? low : high) = middle;
  }
  return std::exp((low + high) / 2);
}

// How many deviations leave out about exp(log_mass) of a normal distribution at most.
double deviations_for(double log_mass) { return std::clamp(std::sqrt(std::max(0.0, -2 * log_mass)), 4.0, 38.0); }

// What lies beyond may change delta by e^-kBeyondReach of itself. Far above, only a record that was drawn gets there.
Reach reach_for(const std::vector<Step>& steps, double log_delta) {
  const double log_mass = log_delta - kBeyondReach;
  return {std::max(8.0, deviations_for(log_mass - std::log(total_count(steps)))),
          deviations_for(log_mass - std::log(expected_draws(steps)))};
}

// The period that a tilt needs: wrapped copies from below carry at most e^(-tilt * period), the ones from above at most a
// Chernoff bound.
void set_period(Window& window, const Cumulant& cumulant, const Cumulant::Value& value) {
  // Relative to delta, not to the whole tilted sum.
  const double wrapped = kWrapped + std::max(0.0, value.k - window.tilt * window.epsilon - window.log_delta - kAmplified / 2);
  const double from_below = (window.tilt * window.epsilon - value.k + wrapped) / window.tilt;
  double from_above = kInfinity;
  for (double factor : {0.125, 0.25, 0.5, 1.0, 2.0, 4.0}) {
    const double more = factor * window.tilt;
    const double needed = (cumulant.at(window.tilt + more).k - value.k + wrapped) / more - window.epsilon;
    if (needed < from_above) {
      from_above = needed;
      window.remainder = more;
    }
  }
  window.period = std::max({from_below, from_above, 4 * window.deviation});
}

// A tilt of a few inverse deviations makes w fall off fast and the period short. One that moves the sum far away from
// epsilon (two bumps can trade places) drowns delta in rounding, or makes the period long again. Where the sum is far from
// normal (rare large losses), smaller tilts than the saddle point's are tried too.
void choose_tilt(Window& window, const Cumulant& cumulant, double tilt, double largest, std::optional<double> log_delta) {
  const Cumulant::Value at_saddle = cumulant.at(tilt);
  const double normal = normal_log_delta(at_saddle, tilt);
  const bool far_from_normal = log_delta && std::abs(*log_delta - normal) > 1;
  const double expected = far_from_normal ? *log_delta : normal;
  const double acceptable = std::max(expected + kAmplified, at_saddle.k - tilt * window.epsilon + 4);
  const double smallest = far_from_normal ? tilt / 64 : tilt;
  Window best = window;
  best.period = kInfinity;
  for (double candidate = std::max(tilt, std::min(4 / std::sqrt(at_saddle.variance), largest));; candidate /= 2) {
    window.tilt = std::max(candidate, smallest);
    const Cumulant::Value value = cumulant.at(window.tilt);
    window.deviation = std::sqrt(value.variance);
    window.log_delta = log_delta ? *log_delta : std::min(0.0, normal_log_delta(value, window.tilt));
    const bool last = candidate <= smallest;
    if ((last && best.period == kInfinity) || value.k - window.tilt * window.epsilon <= acceptable) {
      set_period(window, cumulant, value);
      if (window.period * std::sqrt(1 + window.tilt) < best.period * std::sqrt(1 + best.tilt)) best = window;
      if (window.period > 4 * best.period) break;
    }
    if (last) break;
  }
  window = best;
}

std::optional<Window> make_window(const std::vector<Step>& steps, const Cumulant& cumulant,
                                  Direction direction, double tilt, double epsilon, Reach reach,
                                  std::optional<double> log_delta) {
  Window window;
  window.epsilon = std::max(epsilon, 0.0);
  window.reach = reach;
  // A grid of moderate size must be able to follow exp(tilt * loss).
  double range = 0;
  for (const Step& step : steps) {
    const LossRange losses = step.range(direction, reach);
    // Far below, what the sampled Gaussian loses in direction add is left out of its grid.
    const bool cut_below = direction == Direction::add && !step.pair;
    range = std::max(range, losses.high + (cut_below ? std::min(-losses.low, 50 / tilt) : -losses.low));
  }
  if (reach.cut == kInfinity && window.epsilon < range) {
    window.uncut = std::min(1.0, cut_for(steps, direction, window.epsilon).loss / range);
  }
  const double largest = 0.1 * kTiltCells / range;
  tilt = std::min(tilt, largest);
  // The grid of a pair is fine everywhere.
  const bool pairs = std::any_of(steps.begin(), steps.end(), [](const Step& step) { return step.pair != nullptr; });
  choose_tilt(window, cumulant, tilt, pairs ? largest : kInfinity, log_delta);

  // The two discretisations together move epsilon by about count * spacing^2 * (1 + tilt) / 8. Where epsilon is next to
  // nothing, the bulk of the losses (without their rare large values) must be resolved instead.
  const double variance =
      std::min({cumulant.at(tilt).variance, cumulant.at(0).variance, cumulant.at(-1).variance});
  const double scale = std::max(window.epsilon, 0.3 * std::sqrt(variance));
  const double affordable = kRelativeWidth * scale;
  // Far from normal the tilt says little about how fast delta falls.
  const double slope = log_delta ? std::max(window.tilt, -*log_delta / scale) : window.tilt;
  const std::vector<double> at_tilt = cumulant.parts_at(window.tilt);
  window.spacing = spacing_for(cumulant, window.tilt, at_tilt, slope, kNarrowShare * affordable,
                               std::sqrt(8 * kNarrowShare * affordable / (total_count(steps) * (1 + slope))));
  const double wanted = window.spacing;
  const double longest = total_count(steps) < kMany ? kLargestLength : kLargestLengthOfMany;
  window.finest = std::max(window.period / longest, range / kLargestCells);
  window.spacing = std::max(wanted, window.finest);
  window.coarse = window.spacing > 2 * wanted;
  window.spacing = on_lattice(steps, window.spacing);
  widen_tails(window, cumulant, at_tilt, slope, affordable);
  const bool follows = window.spacing > 0 && window.spacing * (1 + window.tilt) < 1;
  const bool fits = window.period <= 1.01 * longest * window.spacing &&
                    range <= 1.01 * kLargestCells * window.spacing && window.period < 1e12;
  if (!follows || !fits) return {};
  return window;
}

bool too_small(const std::vector<Step>& steps) {
  return std::any_of(steps.begin(), steps.end(), [](const Step& step) { return step.s < kSmallestNoise; });
}

}  // namespace

std::optional<Window> window_at_delta(const Spending& spending, Direction direction, double log_delta) {
  const auto steps = steps_of(spending);
  if (too_small(steps)) return {};
  const Reach reach = reach_for(steps, log_delta);
  const Cumulant cumulant(steps, direction, reach);
  const double tilt =
      find_tilt([&](double t) { return normal_log_delta(cumulant.at(t), t) > log_delta; });
  return make_window(steps, cumulant, direction, tilt, cumulant.at(tilt).mean, reach, {});
}

std::optional<Window> window_at_epsilon(const Spending& spending, Direction direction, double epsilon,
                                        std::optional<double> log_delta) {
  const auto steps = steps_of(spending);
  if (too_small(steps)) return {};
  Reach reach = reach_for(steps, log_delta ? *log_delta : -40);
  for (int i = 0;; ++i) {
    const Cumulant cumulant(steps, direction, reach);
    const double tilt = find_tilt([&](double t) { return cumulant.at(t).mean < epsilon; });
    if (log_delta) return make_window(steps, cumulant, direction, tilt, epsilon, reach, log_delta);
    const Reach needed = reach_for(steps, normal_log_delta(cumulant.at(tilt), tilt));
    const bool enough = needed.around <= reach.around * 1.0001 && needed.above <= reach.above * 1.0001;
    if (enough || i == 4) return make_window(steps, cumulant, direction, tilt, epsilon, reach, {});
    reach = needed;
  }
}

std::optional<Window> cut_window(const Spending& spending, Direction direction, double epsilon, double log_delta) {
  const auto steps = steps_of(spending);
  if (too_small(steps)) return {};
  Reach reach = reach_for(steps, log_delta);
  const Cut cut = cut_for(steps, direction, epsilon);
  reach.cut = cut.loss;
  const Cumulant cumulant(steps, direction, reach);
  const double tilt = find_tilt([&](double t) { return cumulant.at(t).mean < epsilon; });
  auto window = make_window(steps, cumulant, direction, tilt, epsilon, reach, log_delta);
  if (window) window->rest_tilt = cut.rest_tilt;
  return window;
}

std::optional<Window> finer_window(const Window& window, double epsilon, double width, bool transformed) {
  const double finest = transformed ? window.finest : window.finest / kLongerWithoutTransform;
  if (window.spacing <= finest * 1.001) return {};
  Window finer = window;
  // The width falls with the square of the spacing; where the first grid was much too coarse, by more.
  const double factor = std::clamp(0.8 * std::sqrt(kRelativeWidth * epsilon / width), 0.1, 0.7);
  // A whole number of points more, so that the grid still passes through what it did.
  const double parts = std::min(std::ceil(1 / factor), std::floor(window.spacing / finest));
  if (!(parts >= 2)) return {};
  finer.spacing = window.spacing / parts;
  finer.widest /= parts;
  return finer;
}

}  // namespace hushgrad
