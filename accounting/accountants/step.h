// The kinds of steps of a composition, and a coarse model of their losses to steer by.
#pragma once

#include <vector>

#include "accounting/accountants/loss_grid.h"
#include "accounting/accountants/spending.h"

namespace hushgrad {

/// One kind of step of a composition, `count` times: a sampled Gaussian, or any other pair.
struct Step {
  double q, s, count;
  LossPairPointer pair;

  /// Losses and log probabilities on about a hundred points or more, in one direction.
  LossOutline outline(Direction direction, Reach reach) const;
  /// Where the losses end and most of them may sit; infinite for a plain Gaussian.
  double end(Direction direction) const;
  LossRange range(Direction direction, Reach reach) const;
  GridLoss grid(Direction direction, Bound bound, const GridOptions& options) const;
};

std::vector<Step> steps_of(const Spending& spending);
double total_count(const std::vector<Step>& steps);
/// How often the record is drawn, in the mean; pairs count as if always.
double expected_draws(const std::vector<Step>& steps);

/// How fine a grid is: its spacing, and how far apart its points may be where the losses are thin (GridOptions).
struct Fineness {
  double spacing, log_fine, widest;
};

/// A coarse model of the cumulant function K(t) = sum of log E[exp(t * loss)], restricted to |x| within reach. It only
/// steers; no bound depends on it.
class Cumulant {
 public:
  struct Value {
    double k, mean, variance;
  };

  Cumulant(const std::vector<Step>& steps, Direction direction, Reach reach);
  Value at(double tilt) const;

  /// The cumulant functions of the parts alone, once each, at that tilt.
  std::vector<double> parts_at(double tilt) const;
  /// How far two grids that are so fine move epsilon, where delta falls like exp(-slope * epsilon). at_tilt: parts_at(tilt).
  double shift(double tilt, const std::vector<double>& at_tilt, double slope, const Fineness& fineness) const;

 private:
  struct Part {
    double count;
    double end;  // of the losses; infinite for a plain Gaussian
    std::vector<double> losses, log_p, log_density;
  };
  std::vector<Part> parts_;
};

}  // namespace hushgrad
