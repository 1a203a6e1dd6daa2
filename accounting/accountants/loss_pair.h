// A dominating pair of distributions (with the record, without it), for mechanisms other than the sampled Gaussian: all
// that composition needs to know of a mechanism. A new mechanism is one more class like those in mechanisms.h.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "accounting/accountants/gaussian.h"
#include "accounting/accountants/loss_grid.h"

namespace hushgrad {

/// All outcomes whose loss log(P/Q) lies in one cell of a grid, or one outcome.
struct Outcome {
  std::int64_t place;  // of the cell [offset + place * spacing, offset + (place + 1) * spacing]
  double above;        // loss - offset - place * spacing of all of it together, in [0, spacing]
  double log_q;        // log of its probability under Q; under P it is log_q + loss
};

/// A pair of distributions up to a remainder that was left out: rest_p and rest_q bound its probability under each.
/// Where `low_rest` is set, the remainder under Q has losses below and the one under P above all outcomes here.
struct Outcomes {
  double spacing, offset;
  std::vector<Outcome> list;
  double low_p = 0, low_q = 0;    // left out below all outcomes
  double high_p = 0, high_q = 0;  // left out above all outcomes, or anywhere
};

struct LossRange {
  double low, high;  // finite
};

/// Guarantee of every implementation: the mechanism is dominated by the pair (P, Q) in direction remove and by (Q, P) in
/// direction add. Where tight() holds the pair is attained by some data, so lower ends may use it.
class LossPair {
 public:
  virtual ~LossPair() = default;
  /// Equal keys, equal pairs.
  virtual std::string key() const = 0;
  /// log_rest: roughly the logarithm of the probability that may be left out.
  virtual Outcomes outcomes(double spacing, double offset, double log_rest) const = 0;
  virtual LossRange range(double log_rest) const = 0;
  /// A loss at which much of the probability sits; the grid gets a point there.
  virtual double centre() const { return 0; }
  /// Much of the probability sits at multiples of this distance from the centre, too; 0: nowhere in particular.
  virtual double lattice() const { return 0; }
  virtual bool tight() const { return true; }
  /// How far the loss of an outcome may be off beyond a few roundings of itself.
  virtual double loss_rounding() const { return 0; }
  /// Probability that the record has any influence at all; 1 where unknown.
  virtual double used() const { return 1; }
  /// mu^2 of a plain Gaussian release that dominates the pair in both directions: what it spends without amplification, known
  /// also where the outcomes above leave out more than a question allows. Infinite where none is known.
  virtual double gaussian_mu_squared() const { return std::numeric_limits<double>::infinity(); }
  /// One run alone in closed form: log delta at epsilon >= 0, the larger of both directions. Empty where there is none.
  virtual std::optional<LogDelta> log_delta(double epsilon) const {
    static_cast<void>(epsilon);
    return {};
  }
};

using LossPairPointer = std::shared_ptr<const LossPair>;

/// The pair with its losses moved onto a grid: Bound::upper dominates the pair, Bound::lower is dominated by it (both in
/// that direction). options.reach is the number of standard deviations that correspond to the remainder.
GridLoss pair_grid(const LossPair& pair, Direction direction, Bound bound, const GridOptions& options);

/// Losses and log probabilities (of P for remove, of Q for add) on about a thousand points; only to steer by.
struct LossOutline {
  std::vector<double> losses, log_p;
};
LossOutline pair_outline(const LossPair& pair, Direction direction, double log_rest);

/// Renyi divergence of `order` > 1, the larger of both directions, up to a remainder of probability `rest` that is left
/// out: an upper bound for the rest of the pair.
struct RenyiBound {
  double divergence, rest;
};
RenyiBound pair_rdp(const LossPair& pair, double order);

}  // namespace hushgrad
