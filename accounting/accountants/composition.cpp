#include "accounting/accountants/composition.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "accounting/accountants/fft.h"
#include "accounting/accountants/shares.h"
#include "accounting/accountants/step.h"
#include "accounting/accountants/undershoot.h"

namespace hushgrad {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kUlp = std::numeric_limits<double>::epsilon();
constexpr double kPi = 3.14159265358979323846;
// Coefficients below e^-kNegligible are left out and bounded.
constexpr double kNegligible = 80;
// The work of a transform for each place, in terms of a direct sum.
constexpr double kTransformCost = 24;
// And the work that accuracy is worth.
constexpr double kAccurateCost = 100;
// Probabilities of what is beyond a grid are right up to this factor.
constexpr double kBeyondError = 1e-12;

// The step with the widest tilted losses first: after it, few frequencies are left to look at.
std::vector<Step> widest_first(std::vector<Step> steps, Direction direction, const Window& window) {
  if (steps.size() < 2) return steps;
  std::vector<std::pair<double, std::size_t>> order;
  for (std::size_t i = 0; i < steps.size(); ++i) {
    order.push_back({-Cumulant({steps[i]}, direction, window.reach).at(window.tilt).variance, i});
  }
  std::sort(order.begin(), order.end());
  std::vector<Step> sorted;
  for (const auto& [variance, i] : order) sorted.push_back(steps[i]);
  return sorted;
}

// The power `count` of a coefficient below this is negligible.
double alone_negligible(double count) { return std::exp(-kNegligible / count) * (1 - 1e-12); }

}  // namespace

// The product of all powers of coefficients: log |coefficient|, rounded up, its phase, and its relative error.
struct Composition::Product {
  explicit Product(std::size_t frequencies) : size(frequencies) {}

  // From `to` on all are negligible; the rest gets room.
  void shrink(std::size_t to) {
    size = std::min(size, to);
    for (auto* values : {&log_size, &phase, &relative}) values->resize(size, 0);
  }

  std::vector<double> log_size, phase, relative;
  std::size_t size;  // all frequencies from here on are negligible

  // From where on all are negligible after `count` steps with these coefficients.
  std::size_t size_after(const Shares& shares, double count) const {
    const double alone = alone_negligible(count);
    std::size_t j = size;
    for (; j > 0; --j) {
      const double before = j <= log_size.size() ? log_size[j - 1] : 0;
      if (before < -kNegligible) continue;
      const double bound = std::abs(1.0 + shares.away[j - 1]) + shares.error[j - 1];
      if (bound < alone) continue;
      if (!(before + count * std::log(bound) < -kNegligible - 1e-9)) break;
    }
    return j;
  }

  void multiply(std::size_t j, std::complex<double> away, double error, double count) {
    const double growth = 2 * away.real() + std::norm(away);
    // A small coefficient is what is left of 1: its square would keep half of the digits that it has itself.
    const bool small = growth < -0.5;
    if (small) error += 4 * kUlp;
    const double size = std::abs(1.0 + away);
    const double log_coefficient = small ? std::log(size + error) : std::log1p(growth) / 2 + error / size;
    log_size[j] += count * log_coefficient;
    if (log_size[j] < -kNegligible) return;
    const double turn = std::atan2(away.imag(), 1 + away.real());
    phase[j] += std::remainder(count * turn, 2 * kPi);
    // log_coefficient is already the rounded-up size; the true one may be smaller by twice the error, and its phase off
    // by one. The functions and products round relative to their results.
    relative[j] += count * (3 * error / std::max(size - error, 1e-3 * error) +
                            4 * kUlp * (std::abs(log_coefficient) + std::abs(turn))) + 8 * kUlp;
  }
};

Composition::Composition(const Spending& spending, Direction direction, Bound bound, const Window& window)
    : bound_(bound), cut_(window.reach.cut < kInfinity), tilt_(window.tilt), spacing_(window.spacing),
      length_(static_cast<std::int64_t>(fft_length(window.period / window.spacing))), rest_tilt_(window.rest_tilt), far_tilt_(window.remainder) {
  Product product(static_cast<std::size_t>(length_) / 2 + 1);
  for (const Step& step : widest_first(steps_of(spending), direction, window)) {
    const Cumulant one({{step.q, step.s, 1, step.pair}}, direction, window.reach);
    GridOptions options{spacing_, tilt_, window.reach, one.at(tilt_).k, window.log_fine - std::log(step.count), window.widest};
    multiply(product, step.grid(direction, bound, options), step.count);
    if (cut_) log_rest_moment_ += step.count * log_undershoot_moment(step, rest_tilt_);
  }
  finish_product(product);
}

void Composition::multiply(Product& product, const GridLoss& grid, double count) {
  // The largest mass goes to place 0 and stays out of the transform, whose error is then relative to the rest.
  const auto peak_at = static_cast<std::size_t>(std::max_element(grid.masses.begin(), grid.masses.end()) - grid.masses.begin());
  const double top = grid.loss(grid.masses.size() - 1, spacing_);
  double total = 0, far = 0;  // far: of exp(far_tilt * (loss - top))
  for (std::size_t i = 0; i < grid.masses.size(); ++i) {
    total += grid.masses[i];
    if (bound_ == Bound::lower) far += grid.masses[i] * std::exp(far_tilt_ * (grid.loss(i, spacing_) - top));
  }
  // A composition without this step is a lower bound too, and the better one where the grid is wider than the losses.
  // (Not of a grid that was cut: its moment lacks what is kept apart.)
  if (bound_ == Bound::lower && !cut_ && !(grid.log_scale + std::log(total) > 0)) return;
  set_apart(grid, count);
  if (!(total > 0)) {
    infinite_ += 1;  // all of it was left out
    return;
  }
  const double bulk = grid.loss(peak_at, spacing_);
  log_moment_ += count * (grid.log_scale + std::log(total));
  far_log_moment_ += count * (std::log(far / total) + far_tilt_ * top);
  offset_ += count * bulk;
  infinite_ += count * grid.infinite;
  loss_error_ += count * (grid.loss_error + 4 * kUlp * std::abs(bulk));
  relative_error_ += count * (grid.relative_error + 8 * kUlp) + 4 * kUlp * count * std::abs(grid.log_scale + std::log(total));

  SparseMasses rest;
  for (std::size_t i = 0; i < grid.masses.size(); ++i) {
    if (i == peak_at || grid.masses[i] == 0) continue;
    rest.places.push_back(grid.places[i] - grid.places[peak_at]);
    rest.masses.push_back(grid.masses[i] / total);
  }
  const auto length = static_cast<std::size_t>(length_);
  const auto few = [&](double size, double cost) {
    return size * static_cast<double>(rest.places.size()) < cost * static_cast<double>(length);
  };
  product.size = std::min(product.size, small_from(rest, grid.masses[peak_at] / total, length, alone_negligible(count)));
  Shares shares;
  if (!few(static_cast<double>(product.size), kTransformCost)) {
    // The transform tells which frequencies matter; sums give those more accurately.
    transformed_ = true;
    shares = shares_by_transform(rest, length);
    product.size = product.size_after(shares, count);
  }
  const bool sums = shares.away.empty() || few(static_cast<double>(product.size), kAccurateCost);
  shares = sums ? shares_by_sums(rest, length, product.size) : shares_by_both(rest, length, product.size);
  product.shrink(product.size);
  for (std::size_t j = 0; j < product.size; ++j) {
    if (product.log_size[j] >= -kNegligible) product.multiply(j, shares.away[j], shares.error[j], count);
  }
  while (product.size > 0 && product.log_size[product.size - 1] < -kNegligible) product.shrink(product.size - 1);
}

void Composition::finish_product(Product& product) {
  product.shrink(product.size);  // where nothing was multiplied, all coefficients are 1
  const double n = static_cast<double>(length_);
  for (std::size_t j = 0; j < product.size; ++j) {
    if (product.log_size[j] < -kNegligible) continue;
    const double w = 2 * kPi * static_cast<double>(j) / n;
    const auto weight = [&](double tilt) {
      const double fall = std::exp(-tilt * spacing_), s = std::sin(w / 2);
      return 1.0 / std::complex<double>(-std::expm1(-tilt * spacing_) + 2 * fall * s * s, -fall * std::sin(w));
    };
    const double size = std::exp(std::min(product.log_size[j], 0.0));
    const double twice = j == 0 || 2 * static_cast<std::int64_t>(j) == length_ ? 1 : 2;
    coefficients_.push_back({static_cast<std::int64_t>(j), twice * std::polar(size, product.phase[j]) / n,
                             twice * size * std::min(2.0, std::expm1(std::min(product.relative[j], 2.0))) / n,
                             weight(tilt_), weight(tilt_ + 1)});
  }
  dropped_error_ = std::exp(-kNegligible) * 2 / -std::expm1(-tilt_ * spacing_);
}

void Composition::set_apart(const GridLoss& grid, double count) {
  const Beyond& beyond = grid.beyond;
  log_within_ += count * std::log1p(-beyond.without);
  log_within_ratio_ += count * std::log1p(-beyond.excess / (1 - beyond.without));
  beyond_.push_back({count * beyond.without, beyond.lowest_beyond});
  lowest_total_ += count * beyond.lowest;
}

// Under Q, the probability that some step is beyond its grid and all losses together are below epsilon all the same: then those
// of the other steps are below epsilon less the loss of this one.
double Composition::beyond_but_below(double epsilon) const {
  double probability = 0;
  for (const BeyondSteps& steps : beyond_) {
    const double at_least = steps.lowest + lowest_total_;
    if (epsilon < at_least - 1e-9 * std::abs(at_least)) continue;
    const double exponent = rest_tilt_ * (epsilon - steps.lowest);
    const double rounding = 1e-12 * (rest_tilt_ * (std::abs(epsilon) + std::abs(steps.lowest)) + log_rest_moment_);
    const double rest = cut_ ? std::exp(std::min(0.0, exponent + log_rest_moment_ + rounding)) : 1;
    probability += steps.expected * rest;
  }
  return probability * (1 + kBeyondError);
}

// What outcomes in which some step is beyond its grid add to delta: P(S) - e^epsilon Q(S) of the set S of all of them is never
// more than they add. It is less by what outcomes of S with a loss below epsilon take off, at most e^epsilon times their
// probability under Q. P(S) is never less than what they add.
double Composition::beyond(double epsilon) const {
  const double without = -std::expm1(log_within_), excess = std::exp(log_within_) * -std::expm1(log_within_ratio_);
  const double taken = std::expm1(epsilon) * without, error = kBeyondError * (excess + std::abs(taken));
  // Where e^epsilon overflows only the plainest bound is left.
  if (!std::isfinite(taken)) return bound_ == Bound::lower ? 0 : (excess + without) * (1 + kBeyondError);
  if (bound_ == Bound::lower) return std::max(0.0, excess - taken - error);
  const double most = (excess + without) * (1 + kBeyondError);
  return std::clamp(excess - taken + error + std::exp(epsilon) * beyond_but_below(epsilon), 0.0, most);
}

// With T the tilted sum of losses, delta(epsilon) = exp(log_moment - tilt * epsilon) E[w(T - epsilon)],
// w(u) = exp(-tilt u) (1 - exp(-u)) for u > 0 and 0 elsewhere. By Parseval the expectation is a sum over frequencies of
// the known transform of w, a difference of two geometric series.
double Composition::log_delta(double epsilon) const {
  if (log_moment_ == -kInfinity) return finish(-kInfinity, epsilon);
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
  // Where nearly all that the sum holds has come around, the difference is rounding: of the sum too, hence twice.
  const auto rounded = [&](double log_moment, double exponent) {
    return 2 * (relative_error_ + 4 * kUlp * (std::abs(log_moment) + std::abs(exponent) + std::abs(tilt_ * epsilon) + 8));
  };
  const double from_below = tilt_ * (epsilon - period), from_above = far_tilt_ * (epsilon + period);
  const double below = std::exp(from_below - log_moment_ + rounded(log_moment_, from_below)) / -std::expm1(-tilt_ * period);
  const double above = std::exp(far_log_moment_ - from_above + rounded(far_log_moment_, from_above)) /
                       -std::expm1(-far_tilt_ * period);
  return finish(std::log(std::max(sum - error - below - above, 0.0)), epsilon);
}

double Composition::finish(double log_tilted_sum, double epsilon) const {
  const double exact = log_moment_ - tilt_ * epsilon + log_tilted_sum;
  const double error = relative_error_ + 4 * kUlp * (std::abs(log_moment_) + std::abs(tilt_ * epsilon) + 8);
  const double apart = beyond(epsilon);
  if (bound_ == Bound::lower) {
    const double within = std::isnan(exact) ? -kInfinity : exact - error;
    return std::min(apart > 0 && !std::isnan(apart) ? std::log(std::exp(std::min(within, 1.0)) + apart) - 4 * kUlp : within, 0.0);
  }
  const double bound = std::log((std::exp(std::min(exact + error, 1.0)) + infinite_ + apart) * (1 + 8 * kUlp));
  return std::isnan(bound) ? 0 : std::min(bound, 0.0);
}

}  // namespace hushgrad
