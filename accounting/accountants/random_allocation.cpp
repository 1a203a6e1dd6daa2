// Balls in bins: the likelihood ratio is an average of independent ones, whose distribution is built by doubling.
#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>
#include <sstream>

#include "accounting/accountants/normal.h"
#include "accounting/accountants/pair_walk.h"
#include "accounting/accountants/pairs.h"

namespace hushgrad {
namespace {

// Sums of B independent likelihood ratios under Q: masses[i] at exp((first + i) * step), moved apart from the true ones so
// that every mean is kept (larger in convex order).
struct Sum {
  double step = 0;
  std::int64_t first = 0;
  std::vector<double> masses;
  double count = 0;  // B
};

// The same on a grid of half the step.
Sum finer(const Sum& sum) {
  Sum result{sum.step / 2, 2 * sum.first, std::vector<double>(2 * sum.masses.size() - 1, 0), sum.count};
  for (std::size_t i = 0; i < sum.masses.size(); ++i) result.masses[2 * i] = sum.masses[i];
  return result;
}

// All of e^a + e^b = e^a (1 + e^(b - a)) at one distance lie at the same place between two grid points: two weights.
Sum add(const Sum& a, const Sum& b) {
  const double g = a.step;
  const std::int64_t a_last = a.first + static_cast<std::int64_t>(a.masses.size()) - 1;
  const std::int64_t b_last = b.first + static_cast<std::int64_t>(b.masses.size()) - 1;
  const std::int64_t first = std::max(a.first, b.first), last = std::max(a_last, b_last) + static_cast<std::int64_t>(std::ceil(std::log(2) / g)) + 1;
  Sum sum{g, first, std::vector<double>(static_cast<std::size_t>(last - first + 1), 0), a.count + b.count};
  for (std::int64_t d = a.first - b_last; d <= a_last - b.first; ++d) {  // place in a minus place in b
    const double rise = std::log1p(std::exp(-g * static_cast<double>(std::abs(d)))) / g;
    const auto up = static_cast<std::int64_t>(rise);
    const double high = std::clamp(std::expm1(g * (rise - static_cast<double>(up))) / std::expm1(g), 0.0, 1.0);
    const std::int64_t from = std::max(a.first, b.first + d), to = std::min(a_last, b_last + d);
    if (from > to) continue;
    const double* x = a.masses.data() + (from - a.first);
    const double* y = b.masses.data() + (from - d - b.first);
    // The larger of the two is at place k (d >= 0) or k - d.
    double* out = sum.masses.data() + (from + (d < 0 ? -d : 0) + up - first);
    for (std::int64_t k = 0; k <= to - from; ++k) {
      const double p = x[k] * y[k];
      out[k] += p * (1 - high);
      out[k + 1] += p * high;
    }
  }
  return sum;
}

class RandomAllocationPair : public LossPair {
 public:
  RandomAllocationPair(std::int64_t bins, double s) : bins_(bins), s_(s) {}

  std::string key() const override {
    std::ostringstream text;
    text.precision(17);
    text << "allocation " << bins_ << ' ' << s_;
    return text.str();
  }
  bool tight() const override { return false; }
  // The logarithm of a sum of up to `bins` terms, each addition of two rounded, less the logarithm of their number.
  double loss_rounding() const override {
    return 64 * std::numeric_limits<double>::epsilon() * (1 + std::log(static_cast<double>(bins_)));
  }
  // Told the bin, the attacker sees one Gaussian release.
  double gaussian_mu_squared() const override { return (1 + 1e-15) / (s_ * s_); }

  Outcomes outcomes(double spacing, double offset, double log_rest) const override {
    const auto ratio = average(log_rest);
    Outcomes outcomes{spacing, offset, {}};
    for (std::size_t i = 0; i < ratio->sum.masses.size(); ++i) {
      if (!(ratio->sum.masses[i] > 0)) continue;
      const double loss = loss_at(ratio->sum, i);
      const auto place = static_cast<std::int64_t>(std::floor((loss - offset) / spacing));
      const double above = std::clamp(loss - offset - static_cast<double>(place) * spacing, 0.0, spacing);
      outcomes.list.push_back({place, above, std::log(ratio->sum.masses[i])});
    }
    outcomes.high_p = ratio->lost_p;
    outcomes.low_q = ratio->lost_q;
    return outcomes;
  }
  LossRange range(double log_rest) const override {
    const auto ratio = average(log_rest);
    return {loss_at(ratio->sum, 0), loss_at(ratio->sum, ratio->sum.masses.size() - 1)};
  }

 private:
  struct Average {
    Sum sum;
    double lost_p = 0, lost_q = 0;
  };

  double loss_at(const Sum& sum, std::size_t i) const {
    return static_cast<double>(sum.first + static_cast<std::int64_t>(i)) * sum.step - std::log(static_cast<double>(bins_));
  }

  // A deep enough result serves every shallower question.
  std::shared_ptr<const Average> average(double log_rest) const {
    const double rest = std::clamp(log_rest, -200.0, -30.0);
    const std::lock_guard lock(mutex_);
    if (!known_ || rest < known_rest_) {
      known_rest_ = std::max(-200.0, 1.25 * rest);
      known_ = std::make_shared<const Average>(compute(known_rest_));
    }
    return known_;
  }

  Average compute(double log_rest) const {
    const double bins = static_cast<double>(bins_), mu = 1 / s_;
    const double levels = std::ceil(std::log2(bins)) + 1;
    // Splitting adds up to step^2 / 4 to the relative variance of a sum; that of the average is this:
    const double variance = std::min(1.0, std::expm1(std::min(mu * mu, 30.0)) / bins);
    const double final_step = std::sqrt(4e-3 * variance / levels);
    int doublings = 0;
    while (std::ldexp(1.0, 2 * (doublings + 1)) <= bins && final_step * std::ldexp(1.0, doublings + 1) < 0.05 * mu) ++doublings;
    Average result;
    const double limit = std::exp(log_rest) / (4 * levels);
    Sum power = one(final_step * std::ldexp(1.0, doublings), log_rest, result);
    Sum total;
    for (std::int64_t left = bins_;;) {
      if (left & 1) {
        while (total.count > 0 && total.step > power.step * 1.5) total = finer(total);
        total = total.count > 0 ? add(total, power) : power;
        prune(total, limit, result);
      }
      left >>= 1;
      if (left == 0) break;
      power = add(power, power);
      prune(power, limit, result);
      if (doublings > 0 && power.count >= bins / std::ldexp(1.0, 2 * doublings)) {
        power = finer(power);
        --doublings;
      }
    }
    result.sum = std::move(total);
    return result;
  }

  // exp(l) with l ~ N(-mu^2/2, mu^2) under Q, each cell split onto its ends with its mean kept.
  Sum one(double step, double log_rest, Average& result) const {
    const double mu = 1 / s_, reach = deviations(log_rest - std::log(static_cast<double>(bins_)) - 3);
    const auto first = static_cast<std::int64_t>(std::floor((-mu * mu / 2 - reach * mu) / step));
    const auto last = static_cast<std::int64_t>(std::ceil((mu * mu / 2 + reach * mu) / step));
    Sum sum{step, first, std::vector<double>(static_cast<std::size_t>(last - first + 1), 0), 1};
    const auto standard = [&](double x) { return x * x / -2 - 0.91893853320467274178; };
    for (std::int64_t k = first; k < last; ++k) {
      const double low = (static_cast<double>(k) * step + mu * mu / 2) / mu, width = step / mu;
      double q = 0, excess = 0;
      const int panels = 1 + static_cast<int>(width * (1 + std::abs(low)) * 4);
      for (int i = 0; i < panels; ++i) {
        for (const auto& node : quadrature::kGauss5) {
          const double at = width * (i + node.at) / panels;
          const double p = width / panels * node.weight * std::exp(standard(low + at));
          q += p;
          excess += p * std::expm1(at * mu);
        }
      }
      const double high = excess / std::expm1(step);
      sum.masses[static_cast<std::size_t>(k - first)] += std::max(0.0, q - high);
      sum.masses[static_cast<std::size_t>(k - first) + 1] += high;
    }
    const double bins = static_cast<double>(bins_);
    const double low_end = (static_cast<double>(first) * step + mu * mu / 2) / mu;
    const double high_end = (static_cast<double>(last) * step + mu * mu / 2) / mu;
    const double outside_q = normal_tail(-low_end) + normal_tail(high_end);
    result.lost_q += bins * outside_q;
    result.lost_p += normal_tail(high_end - mu) + normal_tail(mu - low_end) + bins * outside_q;
    return sum;
  }

  // Leaves out the ends where they matter to neither probability: `bins / B` such sums make up the average.
  void prune(Sum& sum, double limit, Average& result) const {
    const double blocks = std::max(1.0, static_cast<double>(bins_) / sum.count);
    const auto weight = [&](std::size_t i) {
      const double value = std::exp(static_cast<double>(sum.first + static_cast<std::int64_t>(i)) * sum.step);
      return sum.masses[i] * (value / sum.count + blocks);
    };
    std::size_t begin = 0, end = sum.masses.size();
    double lost = 0, lost_q = 0;
    while (begin + 1 < end && lost + weight(begin) < limit) {
      lost += weight(begin);
      lost_q += blocks * sum.masses[begin++];
    }
    double lost_above = 0;
    while (end > begin + 1 && lost_above + weight(end - 1) < limit) {
      lost_above += weight(end - 1);
      lost_q += blocks * sum.masses[--end];
    }
    result.lost_p += lost + lost_above;
    result.lost_q += lost_q;
    sum.masses = std::vector<double>(sum.masses.begin() + static_cast<std::ptrdiff_t>(begin),
                                     sum.masses.begin() + static_cast<std::ptrdiff_t>(end));
    sum.first += static_cast<std::int64_t>(begin);
  }

  std::int64_t bins_;
  double s_;
  mutable std::mutex mutex_;
  mutable std::shared_ptr<const Average> known_;
  mutable double known_rest_ = 0;
};

}  // namespace

LossPairPointer random_allocation_pair(std::int64_t bins, double s) {
  return std::make_shared<RandomAllocationPair>(bins, s);
}

}  // namespace hushgrad
