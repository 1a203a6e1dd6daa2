#include "accounting/accountants/composition.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "accounting/accountants/fft.h"
#include "accounting/accountants/loss.h"

namespace hushgrad {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kUlp = std::numeric_limits<double>::epsilon();
constexpr double kPi = 3.14159265358979323846;
constexpr double kLogSqrt2Pi = 0.91893853320467274178;

// Wanted distance between the upper and the lower end, relative to epsilon.
constexpr double kRelativeWidth = 4e-4;
// Wrapped-around mass, and outcomes beyond reach, may change the tilted sum or delta by e^-this.
constexpr double kWrapped = 32;
constexpr double kBeyondReach = 23;
// Rounding of the transform may grow by e^kAmplified, relative to delta.
constexpr double kAmplified = 14;
constexpr double kLargestLength = 1 << 20;
constexpr double kLargestCells = 1 << 20;
constexpr double kTiltCells = 1 << 14;
constexpr std::size_t kBulkRadius = 48;
constexpr double kSmallestNoise = 0.02;
// Coefficients below e^-kNegligible are left out and bounded.
constexpr double kNegligible = 80;

// One kind of step of a composition: a sampled Gaussian, or any other pair.
struct Step {
  double q, s, count;
  LossPairPointer pair;

  LossOutline outline(Direction direction, double reach) const {
    if (pair) return pair_outline(*pair, direction, -reach * reach / 2);
    const SampledLoss loss(q, s);
    const double low = -reach * s, high = 1 + reach * s;
    const int n = static_cast<int>(std::clamp(4 * (high - low) / s, 100.0, 4000.0));
    LossOutline outline;
    for (int i = 0; i <= n; ++i) {
      const double x = low + (high - low) * i / n, l = loss(x);
      const double log_p = -x * x / (2 * s * s) - kLogSqrt2Pi + std::log((high - low) / n / s);
      outline.losses.push_back(direction == Direction::remove ? l : -l);
      outline.log_p.push_back(direction == Direction::remove ? log_p + l : log_p);
    }
    return outline;
  }

  // Where the losses end and most of them may sit; infinite for a plain Gaussian.
  double end(Direction direction) const {
    const double end = pair ? pair->centre() : SampledLoss(q, s).lowest();
    return direction == Direction::remove ? end : -end;
  }

  LossRange range(Direction direction, double reach) const {
    const SampledLoss loss(q, s);
    const LossRange range = pair ? pair->range(-reach * reach / 2) : LossRange{loss(-reach * s), loss(1 + reach * s)};
    return direction == Direction::remove ? range : LossRange{-range.high, -range.low};
  }

  GridLoss grid(Direction direction, Bound bound, const GridOptions& options) const {
    return pair ? pair_grid(*pair, direction, bound, options) : grid_loss(q, s, direction, bound, options);
  }
};

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

// A coarse model of the cumulant function K(t) = sum of log E[exp(t * loss)], restricted to |x| within reach. It only
// steers; no bound depends on it.
class Cumulant {
 public:
  struct Value {
    double k, mean, variance;
  };

  Cumulant(const std::vector<Step>& steps, Direction direction, double reach) {
    for (const Step& step : steps) {
      LossOutline outline = step.outline(direction, reach);
      parts_.push_back({step.count, step.end(direction), std::move(outline.losses), std::move(outline.log_p)});
    }
  }

  Value at(double tilt) const {
    Value total{0, 0, 0};
    for (const Part& part : parts_) {
      double largest = -kInfinity;
      for (std::size_t i = 0; i < part.losses.size(); ++i) {
        largest = std::max(largest, part.log_p[i] + tilt * part.losses[i]);
      }
      double sum = 0, first = 0, second = 0;
      for (std::size_t i = 0; i < part.losses.size(); ++i) {
        const double exponent = part.log_p[i] + tilt * part.losses[i] - largest;
        if (exponent < -50) continue;
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

  // How far two grids of that spacing move epsilon: moving an outcome at distance u above a grid point onto its
  // neighbours raises E[exp(tilt * loss)] by tilt (1 + tilt) u (h - u) / 2. Where most of the mass is next to nothing away
  // from the grid point at the end of the losses, that is far below tilt (1 + tilt) h^2 / 8.
  double shift(double tilt, double slope, double spacing) const {
    double total = 0;
    for (const Part& part : parts_) {
      double sum = 0, moved = 0, largest = -kInfinity;
      for (std::size_t i = 0; i < part.losses.size(); ++i) {
        largest = std::max(largest, part.log_p[i] + tilt * part.losses[i]);
      }
      for (std::size_t i = 0; i < part.losses.size(); ++i) {
        const double exponent = part.log_p[i] + tilt * part.losses[i] - largest;
        if (exponent < -50) continue;
        const double p = std::exp(exponent);
        const double away = std::abs(part.losses[i] - part.end);
        sum += p;
        moved += p * spacing * std::min(away, spacing / 4);
      }
      total += part.count * moved / sum;
    }
    return (1 + slope) / 2 * total;
  }

 private:
  struct Part {
    double count;
    double end;  // of the losses; infinite for a plain Gaussian
    std::vector<double> losses, log_p;
  };
  std::vector<Part> parts_;
};

// The widest spacing whose shift is affordable.
double spacing_for(const Cumulant& cumulant, double tilt, double slope, double affordable, double smallest) {
  double low = std::log(smallest), high = std::log(0.1 / (1 + slope));
  if (!(low < high)) return std::exp(high);
  for (int i = 0; i < 20; ++i) {
    const double middle = (low + high) / 2;
    (cumulant.shift(tilt, slope, std::exp(middle)) < affordable ? low : high) = middle;
  }
  return std::exp(low);
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

// How many deviations of x leave out less than exp(log_mass) of the probability of any step.
double reach_for(double log_mass) { return std::clamp(std::sqrt(std::max(0.0, -2 * log_mass)), 8.0, 38.0); }

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
void choose_tilt(Window& window, const Cumulant& cumulant, double tilt, std::optional<double> log_delta, bool many) {
  const Cumulant::Value at_saddle = cumulant.at(tilt);
  const double normal = normal_log_delta(at_saddle, tilt);
  const bool far_from_normal = log_delta && std::abs(*log_delta - normal) > 1;
  const double expected = far_from_normal ? *log_delta : normal;
  const double acceptable = std::max(expected + kAmplified, at_saddle.k - tilt * window.epsilon + 4);
  const double smallest = far_from_normal ? tilt / 64 : tilt;
  window.rare = far_from_normal || many;
  Window best = window;
  best.period = kInfinity;
  for (double candidate = std::max(tilt, 4 / std::sqrt(at_saddle.variance));; candidate /= 2) {
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
                                  Direction direction, double tilt, double epsilon, double reach,
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
  tilt = std::min(tilt, 0.1 * kTiltCells / range);
  choose_tilt(window, cumulant, tilt, log_delta, total_count(steps) > 1e5);

  // The two discretisations together move epsilon by about count * spacing^2 * (1 + tilt) / 8. Where epsilon is next to
  // nothing, the bulk of the losses (without their rare large values) must be resolved instead.
  const double variance =
      std::min({cumulant.at(tilt).variance, cumulant.at(0).variance, cumulant.at(-1).variance});
  const double scale = std::max(window.epsilon, 0.3 * std::sqrt(variance));
  const double affordable = kRelativeWidth * scale;
  // Far from normal the tilt says little about how fast delta falls.
  const double slope = log_delta ? std::max(window.tilt, -*log_delta / scale) : window.tilt;
  window.spacing = spacing_for(cumulant, window.tilt, slope, affordable,
                               std::sqrt(8 * affordable / (total_count(steps) * (1 + slope))));
  const double wanted = window.spacing;
  window.finest = std::max(window.period / kLargestLength, range / kLargestCells);
  window.spacing = std::max(wanted, window.finest);
  window.coarse = window.spacing > 2 * wanted;
  const bool follows = window.spacing > 0 && window.spacing * (1 + window.tilt) < 1;
  const bool fits = window.period <= 1.01 * kLargestLength * window.spacing &&
                    range <= 1.01 * kLargestCells * window.spacing && window.period < 1e12;
  if (!follows || !fits) return {};
  return window;
}

bool too_small(const std::vector<Step>& steps) {
  return std::any_of(steps.begin(), steps.end(), [](const Step& step) { return step.s < kSmallestNoise; });
}

// The masses within `radius` places of place 0, taken out of a wrapped sequence.
class Bulk {
 public:
  struct Share {
    std::complex<double> away;  // sum of mass * (exp(-i w place) - 1)
    double error;
  };

  Bulk(std::vector<double>& wrapped, std::size_t radius) {
    const std::size_t n = wrapped.size();
    for (std::size_t k = 1; k <= std::min(radius, n / 4); ++k) {
      both_.push_back(wrapped[k] + wrapped[n - k]);
      difference_.push_back(wrapped[k] - wrapped[n - k]);
      wrapped[k] = wrapped[n - k] = 0;
    }
  }

  // half_angle = w / 2. Sines of multiples by rotation: relatively accurate, so the share is too.
  Share at(double half_angle) const {
    if (both_.empty()) return {0, 0};
    const double c1 = std::cos(half_angle), s1 = std::sin(half_angle);
    double c = 1, s = 0, real = 0, imaginary = 0, sizes = 0;
    for (std::size_t i = 0; i < both_.size(); ++i) {
      const double next_c = c * c1 - s * s1;
      s = s * c1 + c * s1;
      c = next_c;
      const double one_minus_cos = 2 * s * s, sin = 2 * s * c;
      real -= both_[i] * one_minus_cos;
      imaginary -= difference_[i] * sin;
      sizes += both_[i] * (one_minus_cos + std::abs(sin));
    }
    return {{real, imaginary}, (8 + 4 * static_cast<double>(both_.size())) * kUlp * sizes};
  }

 private:
  std::vector<double> both_, difference_;
};

}  // namespace

std::optional<Window> window_at_delta(const Spending& spending, Direction direction, double log_delta) {
  const auto steps = steps_of(spending);
  if (too_small(steps)) return {};
  const double reach = reach_for(log_delta - kBeyondReach - std::log(total_count(steps)));
  const Cumulant cumulant(steps, direction, reach);
  const double tilt =
      find_tilt([&](double t) { return normal_log_delta(cumulant.at(t), t) > log_delta; });
  return make_window(steps, cumulant, direction, tilt, cumulant.at(tilt).mean, reach, {});
}

std::optional<Window> window_at_epsilon(const Spending& spending, Direction direction, double epsilon,
                                        std::optional<double> log_delta) {
  const auto steps = steps_of(spending);
  if (too_small(steps)) return {};
  const double log_count = std::log(total_count(steps));
  double reach = reach_for(log_delta ? *log_delta - kBeyondReach - log_count : -60);
  for (int i = 0;; ++i) {
    const Cumulant cumulant(steps, direction, reach);
    const double tilt = find_tilt([&](double t) { return cumulant.at(t).mean < epsilon; });
    if (log_delta) return make_window(steps, cumulant, direction, tilt, epsilon, reach, log_delta);
    const double needed = reach_for(normal_log_delta(cumulant.at(tilt), tilt) - kBeyondReach - log_count);
    if (needed <= reach * 1.0001 || i == 4) return make_window(steps, cumulant, direction, tilt, epsilon, reach, {});
    reach = needed;
  }
}

std::optional<Window> finer_window(const Window& window, double epsilon, double width) {
  if (window.spacing <= window.finest * 1.001) return {};
  Window finer = window;
  // The width falls with the square of the spacing; where the first grid was much too coarse, by more.
  const double factor = std::clamp(0.8 * std::sqrt(kRelativeWidth * epsilon / width), 0.1, 0.7);
  finer.spacing = std::max(window.spacing * factor, window.finest);
  return finer;
}

Composition::Composition(const Spending& spending, Direction direction, Bound bound, const Window& window)
    : bound_(bound), tilt_(window.tilt), spacing_(window.spacing),
      length_(static_cast<std::int64_t>(fft_length(window.period / window.spacing))) {
  const auto steps = steps_of(spending);
  const auto n = static_cast<std::size_t>(length_);
  const std::size_t half = n / 2 + 1;
  // log |coefficient|, rounded up; phase; and relative error of the product of all powers.
  std::vector<double> log_size(half, 0), phase(half, 0), relative(half, 0);
  far_tilt_ = window.remainder;
  for (const Step& step : steps) {
    const Cumulant one({{step.q, step.s, 1, step.pair}}, direction, window.reach);
    const GridLoss grid = step.grid(direction, bound, {spacing_, tilt_, window.reach, one.at(tilt_).k});
    // The largest mass goes to place 0 and stays out of the transform, whose error is then relative to the rest.
    const auto peak_at = std::max_element(grid.masses.begin(), grid.masses.end()) - grid.masses.begin();
    const std::int64_t origin = grid.first + peak_at;
    std::vector<double> wrapped(n, 0);
    double total = 0, far = 0;
    for (std::size_t i = 0; i < grid.masses.size(); ++i) {
      const std::int64_t at = (static_cast<std::int64_t>(i) - peak_at) % length_;
      wrapped[static_cast<std::size_t>(at < 0 ? at + length_ : at)] += grid.masses[i];
      total += grid.masses[i];
    }
    if (bound == Bound::lower) {
      const double step_far = std::exp(far_tilt_ * spacing_);
      double factor = std::exp(far_tilt_ * (grid.offset + static_cast<double>(grid.first) * spacing_));
      for (double mass : grid.masses) {
        far += mass * factor;
        factor *= step_far;
      }
    }
    // A composition without this step is a lower bound too, and the better one where the grid is wider than the losses.
    if (bound == Bound::lower && !(grid.log_scale + std::log(total) > 0)) continue;
    if (!(total > 0)) {
      infinite_ += 1;  // all of it was left out
      continue;
    }
    for (double& mass : wrapped) mass /= total;
    wrapped[0] = 0;
    const double bulk = grid.offset + static_cast<double>(origin) * spacing_;
    log_moment_ += step.count * (grid.log_scale + std::log(total));
    far_log_moment_ += step.count * std::log(far / total);
    offset_ += step.count * bulk;
    infinite_ += step.count * grid.infinite;
    loss_error_ += step.count * (grid.loss_error + 4 * kUlp * std::abs(bulk));
    relative_error_ += step.count * (grid.relative_error + 8 * kUlp) +
                       4 * kUlp * step.count * std::abs(grid.log_scale + std::log(total));

    // Where rare large losses decide, delta is tiny beside the bulk of the masses; the bulk's share is then summed without
    // the cancellation in a transform.
    const Bulk near(wrapped, window.rare ? kBulkRadius : 0);
    const auto spectrum = real_spectrum(wrapped);
    const double transform_error = real_spectrum_error(wrapped) + 8 * kUlp * spectrum[0].real();
    for (std::size_t j = 0; j < half; ++j) {
      if (log_size[j] < -kNegligible) continue;
      // All masses add up to 1, so the coefficient is 1 + away: nothing of size 1 is rounded.
      const Bulk::Share bulk_share = near.at(kPi * static_cast<double>(j) / static_cast<double>(n));
      const std::complex<double> away = spectrum[j] - spectrum[0].real() + bulk_share.away;
      const double growth = 2 * away.real() + std::norm(away);
      const double size = std::sqrt(std::max(0.0, 1 + growth));
      const double error = transform_error + bulk_share.error + 4 * kUlp * std::abs(away);
      const double log_coefficient = growth > -0.5 ? std::log1p(growth) / 2 + error / size : std::log(size + error);
      const double turn = std::atan2(away.imag(), 1 + away.real());
      log_size[j] += step.count * log_coefficient;
      if (log_size[j] < -kNegligible) continue;
      phase[j] += std::remainder(step.count * turn, 2 * kPi);
      // log_coefficient is already the rounded-up size; the true one may be smaller by twice the error, and its phase off
      // by one. The functions and products round relative to their results.
      relative[j] += step.count * (3 * error / std::max(size - error, 1e-3 * error) +
                                   4 * kUlp * (std::abs(log_coefficient) + std::abs(turn))) + 8 * kUlp;
    }
  }
  for (std::size_t j = 0; j < half; ++j) {
    const double w = 2 * kPi * static_cast<double>(j) / static_cast<double>(n);
    const auto weight = [&](double tilt) {
      const double fall = std::exp(-tilt * spacing_), s = std::sin(w / 2);
      return 1.0 / std::complex<double>(-std::expm1(-tilt * spacing_) + 2 * fall * s * s, -fall * std::sin(w));
    };
    if (log_size[j] < -kNegligible) continue;
    const double size = std::exp(std::min(log_size[j], 0.0));
    const double twice = j == 0 || j == n / 2 ? 1 : 2;
    coefficients_.push_back({static_cast<std::int64_t>(j),
                             twice * std::polar(size, phase[j]) / static_cast<double>(n),
                             twice * size * std::min(2.0, std::expm1(std::min(relative[j], 2.0))) / static_cast<double>(n),
                             weight(tilt_), weight(tilt_ + 1)});
  }
  dropped_error_ = std::exp(-kNegligible) * 2 / -std::expm1(-tilt_ * spacing_);
}

// With T the tilted sum of losses, delta(epsilon) = exp(log_moment - tilt * epsilon) E[w(T - epsilon)],
// w(u) = exp(-tilt u) (1 - exp(-u)) for u > 0 and 0 elsewhere. By Parseval the expectation is a sum over frequencies of
// the known transform of w, a difference of two geometric series.
double Composition::log_delta(double epsilon) const {
  if (log_moment_ == -kInfinity) return -kInfinity;
  epsilon += bound_ == Bound::upper ? -loss_error_ : loss_error_;
  const double point = std::floor((epsilon - offset_) / spacing_) + 1;  // the first grid point above epsilon
  const double gap = std::max(0.0, point * spacing_ - (epsilon - offset_));
  const double near = std::exp(-tilt_ * gap), near_up = std::exp(-(tilt_ + 1) * gap);
  const auto shift = static_cast<std::int64_t>(std::fmod(point, static_cast<double>(length_)));

  double sum = 0, error = dropped_error_;
  for (const Coefficient& c : coefficients_) {
    const std::int64_t turn = (c.frequency * shift) % length_;
    const double angle = 2 * kPi * static_cast<double>(turn) / static_cast<double>(length_);
    const std::complex<double> w = std::polar(1.0, angle) * (near * c.weight - near_up * c.weight_up);
    sum += (c.value * w).real();
    error += c.error * std::abs(w) + 16 * kUlp * std::abs(c.value) * (std::abs(c.weight) + std::abs(c.weight_up));
  }
  error += kUlp * static_cast<double>(coefficients_.size()) * std::abs(sum);
  if (bound_ == Bound::upper) return finish(std::log(std::max(sum + error, 0.0)), epsilon);

  // The sum wraps around: mass one or more periods away counts too. From below it carries at most exp(-tilt * period)
  // of the untilted probability, from above a Chernoff bound of the tilted one.
  const double period = static_cast<double>(length_) * spacing_;
  const double below = std::exp(tilt_ * (epsilon - period) - log_moment_ + relative_error_) / -std::expm1(-tilt_ * period);
  const double above = std::exp(far_log_moment_ - far_tilt_ * (epsilon + period) + relative_error_) /
                       -std::expm1(-far_tilt_ * period);
  return finish(std::log(std::max(sum - error - below - above, 0.0)), epsilon);
}

double Composition::finish(double log_tilted_sum, double epsilon) const {
  const double exact = log_moment_ - tilt_ * epsilon + log_tilted_sum;
  const double error = relative_error_ + 4 * kUlp * (std::abs(log_moment_) + std::abs(tilt_ * epsilon) + 8);
  if (bound_ == Bound::lower) return std::isnan(exact) ? -kInfinity : std::min(exact - error, 0.0);
  const double bound = std::log(std::exp(std::min(exact + error, 1.0)) + infinite_);
  return std::isnan(bound) ? 0 : std::min(bound, 0.0);
}

}  // namespace hushgrad
