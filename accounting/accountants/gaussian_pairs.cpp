// Pairs made of Gaussians on the line.
#include <algorithm>
#include <cmath>
#include <limits>
#include <sstream>

#include "accounting/accountants/loss.h"
#include "accounting/accountants/normal.h"
#include "accounting/accountants/pair_walk.h"
#include "accounting/accountants/pairs.h"

namespace hushgrad {
namespace {

constexpr double kLogSqrt2Pi = 0.91893853320467274178;

template <typename... Parts>
std::string key_of(const Parts&... parts) {
  std::ostringstream text;
  text.precision(17);
  ((text << parts << ' '), ...);
  return text.str();
}

double squared(double mu) { return mu * mu * (1 + 1e-15); }

double log_normal(double x, double s) { return -x * x / (2 * s * s) - kLogSqrt2Pi - std::log(s); }

// Five points suffice where the exponents change by less than 1/4.
double narrow(double x, double shift, double s) { return 0.25 * s * s / (std::abs(x) + shift + s); }

class GaussianMixturePair : public LossPair {
 public:
  GaussianMixturePair(double s, std::vector<double> shifts, std::vector<double> probs)
      : s_(s), shifts_(std::move(shifts)), probs_(std::move(probs)),
        largest_(*std::max_element(shifts_.begin(), shifts_.end())) {
    for (std::size_t i = 0; i < shifts_.size(); ++i) {
      if (shifts_[i] > 0) used_ += probs_[i];
    }
  }

  std::string key() const override {
    std::string text = key_of("mixture", s_);
    for (std::size_t i = 0; i < shifts_.size(); ++i) text += key_of(shifts_[i], probs_[i]);
    return text;
  }

  // log of 1 + sum of p (exp(g) - 1): accurate also where next to nothing is shifted.
  double loss(double x) const {
    double top = 0;
    for (std::size_t i = 0; i < shifts_.size(); ++i) top = std::max(top, exponent(i, x));
    double sum = 0;
    if (top < 30) {
      for (std::size_t i = 0; i < shifts_.size(); ++i) sum += probs_[i] * std::expm1(exponent(i, x));
      return std::log1p(std::max(sum, -1 + 1e-300));
    }
    for (std::size_t i = 0; i < shifts_.size(); ++i) sum += probs_[i] * std::exp(exponent(i, x) - top);
    return top + std::log(sum);
  }
  double log_q(double x) const { return log_normal(x, s_); }
  double panel(double x) const { return narrow(x, largest_, s_); }

  Outcomes outcomes(double spacing, double offset, double log_rest) const override {
    Outcomes outcomes{spacing, offset, {}};
    const double reach = deviations(log_rest) * s_, from = -reach, to = largest_ + reach;
    walk(*this, from, to, outcomes);
    outcomes.low_q = normal_tail(-from / s_);
    outcomes.high_q = normal_tail(to / s_);
    for (std::size_t i = 0; i < shifts_.size(); ++i) {
      outcomes.low_p += probs_[i] * normal_tail((shifts_[i] - from) / s_);
      outcomes.high_p += probs_[i] * normal_tail((to - shifts_[i]) / s_);
    }
    return outcomes;
  }
  LossRange range(double log_rest) const override {
    const double reach = deviations(log_rest) * s_;
    return {loss(-reach), loss(largest_ + reach)};
  }
  double centre() const override { return used_ < 0.5 ? loss(0) : 0; }
  double used() const override { return std::min(1.0, used_ * (1 + 1e-12)); }
  double gaussian_mu_squared() const override { return squared(largest_ / s_); }

 private:
  double exponent(std::size_t i, double x) const { return (2 * x - shifts_[i]) * shifts_[i] / (2 * s_ * s_); }

  double s_;
  std::vector<double> shifts_, probs_;
  double largest_, used_ = 0;
};

class SubstitutedGaussianPair : public LossPair {
 public:
  SubstitutedGaussianPair(double q, double s) : q_(q), s_(s), one_(q, s) {}

  std::string key() const override { return key_of("substituted", q_, s_); }
  // The loss against N(0, s^2) of each side; the difference loses nothing relative to 1e-16 of either.
  double loss(double x) const { return one_(x) - one_(-x); }
  double log_q(double x) const { return log_normal(x, s_) + one_(-x); }
  double panel(double x) const { return narrow(x, 2, s_); }

  Outcomes outcomes(double spacing, double offset, double log_rest) const override {
    Outcomes outcomes{spacing, offset, {}};
    const double reach = deviations(log_rest) * s_ + 1;
    walk(*this, -reach, reach, outcomes);
    const double with = (1 - q_) * normal_tail(reach / s_) + q_ * normal_tail((reach - 1) / s_);
    const double against = (1 - q_) * normal_tail(reach / s_) + q_ * normal_tail((reach + 1) / s_);
    outcomes.high_p = outcomes.low_q = with;
    outcomes.low_p = outcomes.high_q = against;
    return outcomes;
  }
  LossRange range(double log_rest) const override {
    const double reach = deviations(log_rest) * s_ + 1;
    return {loss(-reach), loss(reach)};
  }
  double used() const override { return q_; }
  double gaussian_mu_squared() const override { return squared(2 / s_); }

 private:
  double q_, s_;
  SampledLoss one_;
};

class ReplacedGaussianPair : public LossPair {
 public:
  ReplacedGaussianPair(double q, double s) : q_(q), s_(s), one_(q, s) {}

  std::string key() const override { return key_of("replaced", q_, s_); }
  bool tight() const override { return false; }
  double loss(double x) const { return one_(x); }
  double log_q(double x) const { return log_normal(x, s_); }
  double panel(double x) const { return narrow(x, 1, s_); }

  // Ratios above 1 are those of the sampled pair; those below 1 are its mirror; what is left has ratio 1.
  Outcomes outcomes(double spacing, double offset, double log_rest) const override {
    Outcomes outcomes{spacing, offset, {}};
    const double to = 1 + deviations(log_rest) * s_;
    Outcomes upper{spacing, offset, {}};
    walk(*this, 0.5, to, upper);
    Outcomes mirror{spacing, -offset, {}};
    walk(*this, 0.5, to, mirror);
    for (auto it = mirror.list.rbegin(); it != mirror.list.rend(); ++it) {
      const double loss = -offset + static_cast<double>(it->place) * spacing + it->above;
      outcomes.list.push_back({-it->place - 1, spacing - it->above, it->log_q + loss});
    }
    const double q_above = normal_tail(0.5 / s_);
    const double p_above = (1 - q_) * q_above + q_ * normal_tail(-0.5 / s_);
    const double even = 1 - q_above - p_above;
    if (even > 0) {
      const auto place = static_cast<std::int64_t>(std::floor(-offset / spacing));
      outcomes.list.push_back({place, std::clamp(-offset - static_cast<double>(place) * spacing, 0.0, spacing),
                               std::log(even)});
    }
    outcomes.list.insert(outcomes.list.end(), upper.list.begin(), upper.list.end());
    const double high_q = normal_tail(to / s_);
    outcomes.high_p = outcomes.low_q = (1 - q_) * high_q + q_ * normal_tail((to - 1) / s_);
    outcomes.high_q = outcomes.low_p = high_q;
    return outcomes;
  }
  LossRange range(double log_rest) const override {
    const double top = loss(1 + deviations(log_rest) * s_);
    return {-top, top};
  }
  double used() const override { return q_; }
  double gaussian_mu_squared() const override { return squared(1 / s_); }

 private:
  double q_, s_;
  SampledLoss one_;
};

// Both pairs on one grid: the outcomes of each, less probable.
class MixedPair : public LossPair {
 public:
  MixedPair(double weight, LossPairPointer first, LossPairPointer second)
      : weight_(weight), first_(std::move(first)), second_(std::move(second)) {}

  std::string key() const override { return key_of("mixed", weight_, first_->key(), second_->key()); }
  bool tight() const override { return false; }
  Outcomes outcomes(double spacing, double offset, double log_rest) const override {
    Outcomes outcomes{spacing, offset, {}};
    add(outcomes, *first_, 1 - weight_, log_rest);
    add(outcomes, *second_, weight_, log_rest);
    return outcomes;
  }
  LossRange range(double log_rest) const override {
    const LossRange a = first_->range(log_rest), b = second_->range(log_rest);
    return {std::min(a.low, b.low), std::max(a.high, b.high)};
  }
  double centre() const override { return first_->centre(); }
  double loss_rounding() const override { return std::max(first_->loss_rounding(), second_->loss_rounding()); }
  double used() const override {
    return std::min(1.0, ((1 - weight_) * first_->used() + weight_ * second_->used()) * (1 + 1e-12));
  }
  double gaussian_mu_squared() const override {
    return std::max(first_->gaussian_mu_squared(), second_->gaussian_mu_squared());
  }

 private:
  static void add(Outcomes& outcomes, const LossPair& pair, double weight, double log_rest) {
    if (weight <= 0) return;
    const Outcomes part = pair.outcomes(outcomes.spacing, outcomes.offset, log_rest);
    for (Outcome one : part.list) {
      one.log_q += std::log(weight);
      outcomes.list.push_back(one);
    }
    // What is below all outcomes of one pair need not be below those of the other: it counts as above.
    outcomes.high_p += weight * (part.high_p + part.low_p);
    outcomes.low_q += weight * (part.low_q + part.high_q);
  }

  double weight_;
  LossPairPointer first_, second_;
};

}  // namespace

LossPairPointer gaussian_mixture_pair(double s, std::vector<double> shifts, std::vector<double> probs) {
  return std::make_shared<GaussianMixturePair>(s, std::move(shifts), std::move(probs));
}

LossPairPointer substituted_gaussian_pair(double q, double s) {
  return std::make_shared<SubstitutedGaussianPair>(q, s);
}

LossPairPointer replaced_gaussian_pair(double q, double s) { return std::make_shared<ReplacedGaussianPair>(q, s); }

LossPairPointer mixed_pair(double weight, LossPairPointer first, LossPairPointer second) {
  return std::make_shared<MixedPair>(weight, std::move(first), std::move(second));
}

}  // namespace hushgrad
