// Pairs whose losses come in steps: Laplace and discrete Gaussian noise.
#include <algorithm>
#include <cmath>
#include <sstream>

#include "accounting/accountants/discrete_gaussian.h"
#include "accounting/accountants/pair_walk.h"
#include "accounting/accountants/pairs.h"

namespace hushgrad {
namespace {

void add_outcome(Outcomes& outcomes, double loss, double log_q) {
  const auto place = static_cast<std::int64_t>(std::floor((loss - outcomes.offset) / outcomes.spacing));
  const double low = outcomes.offset + static_cast<double>(place) * outcomes.spacing;
  outcomes.list.push_back({place, std::clamp(loss - low, 0.0, outcomes.spacing), log_q});
}

// Neighbouring outcomes of one cell, taken together: millions of integers become a few thousand outcomes.
class Gathering {
 public:
  explicit Gathering(Outcomes& outcomes) : outcomes_(outcomes) {}

  void add(double loss, double log_q) {
    const auto place = static_cast<std::int64_t>(std::floor((loss - outcomes_.offset) / outcomes_.spacing));
    if (size_ == kMost || (size_ > 0 && place != place_)) flush();
    const double low = outcomes_.offset + static_cast<double>(place) * outcomes_.spacing;
    const double above = std::clamp(loss - low, 0.0, outcomes_.spacing);
    if (size_++ == 0) {
      place_ = place;
      first_above_ = above;
      scale_ = log_q;
      q_ = excess_ = 0;
    } else if (log_q > scale_) {
      const double fall = std::exp(scale_ - log_q);
      q_ *= fall;
      excess_ *= fall;
      scale_ = log_q;
    }
    const double q = std::exp(log_q - scale_);
    q_ += q;
    excess_ += q * std::expm1(above);
  }

  void flush() {
    if (size_ == 0) return;
    // A lone outcome keeps its loss to the last bit.
    const double above = size_ == 1 ? first_above_ : std::clamp(std::log1p(excess_ / q_), 0.0, outcomes_.spacing);
    outcomes_.list.push_back({place_, above, scale_ + std::log(q_)});
    size_ = 0;
  }

 private:
  // So many roundings stay far below the error that outcomes are allowed.
  static constexpr int kMost = 500;
  Outcomes& outcomes_;
  int size_ = 0;
  std::int64_t place_ = 0;
  double first_above_ = 0, scale_ = 0, q_ = 0, excess_ = 0;
};

class LaplacePair : public LossPair {
 public:
  LaplacePair(double q, double b) : q_(q), b_(b) {}

  std::string key() const override {
    std::ostringstream text;
    text.precision(17);
    text << "laplace " << q_ << ' ' << b_;
    return text.str();
  }
  // For x <= 0 and x >= 1 the likelihood ratio is constant.
  double loss(double x) const { return sampled((2 * std::clamp(x, 0.0, 1.0) - 1) / b_); }
  double log_q(double x) const { return -std::abs(x) / b_ - std::log(2 * b_); }
  double panel(double) const { return 0.2 * b_; }

  Outcomes outcomes(double spacing, double offset, double) const override {
    Outcomes outcomes{spacing, offset, {}};
    add_outcome(outcomes, loss(0), std::log(0.5));
    walk(*this, 0, 1, outcomes);
    add_outcome(outcomes, loss(1), std::log(0.5) - 1 / b_);
    return outcomes;
  }
  LossRange range(double) const override { return {loss(0), loss(1)}; }
  double centre() const override { return loss(1); }
  double lattice() const override { return loss(1) - loss(0); }
  double used() const override { return q_; }

 private:
  double sampled(double g) const {
    if (q_ == 1) return g;
    return g < 30 ? std::log1p(q_ * std::expm1(g)) : g + std::log(q_ + (1 - q_) * std::exp(-g));
  }

  double q_, b_;
};

class DiscreteGaussianPair : public LossPair {
 public:
  DiscreteGaussianPair(double s, std::int64_t shift)
      : s_(s), shift_(static_cast<double>(shift)), log_norm_(discrete_gaussian_log_norm(s)) {}

  std::string key() const override {
    std::ostringstream text;
    text.precision(17);
    text << "discrete_gaussian " << s_ << ' ' << shift_;
    return text.str();
  }
  Outcomes outcomes(double spacing, double offset, double log_rest) const override {
    Outcomes outcomes{spacing, offset, {}};
    const double reach = std::ceil(deviations(log_rest) * s_) + 1;
    Gathering gathering(outcomes);
    for (double x = -reach; x <= shift_ + reach; ++x) gathering.add(loss(x), -x * x / (2 * s_ * s_) - log_norm_);
    gathering.flush();
    outcomes.low_q = outcomes.high_p = tail(reach + 1);
    outcomes.low_p = outcomes.high_q = tail(reach + 1 + shift_);
    return outcomes;
  }
  LossRange range(double log_rest) const override {
    const double reach = std::ceil(deviations(log_rest) * s_) + 1;
    return {loss(-reach), loss(shift_ + reach)};
  }
  double centre() const override { return loss(0); }
  double lattice() const override { return shift_ / (s_ * s_); }
  std::optional<LogDelta> log_delta(double epsilon) const override { return discrete_gaussian_log_delta(s_, shift_, epsilon); }

 private:
  double loss(double x) const { return (2 * x - shift_) * shift_ / (2 * s_ * s_); }
  // P(X >= x) for x > 0: the ratio of successive terms falls.
  double tail(double x) const {
    const double first = std::exp(-x * x / (2 * s_ * s_) - log_norm_);
    return first / -std::expm1(-(2 * x + 1) / (2 * s_ * s_)) * (1 + 1e-12);
  }

  double s_, shift_, log_norm_;
};

}  // namespace

LossPairPointer laplace_pair(double q, double b) { return std::make_shared<LaplacePair>(q, b); }

LossPairPointer discrete_gaussian_pair(double s, std::int64_t shift) {
  return std::make_shared<DiscreteGaussianPair>(s, shift);
}

}  // namespace hushgrad
