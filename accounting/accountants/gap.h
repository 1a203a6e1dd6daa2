// From the ideal mechanisms of an event to what a finite machine releases, and to what is only nearly always true.
#pragma once

#include <functional>

#include "accounting/accountants/interval.h"
#include "accounting/accountants/spending.h"

namespace hushgrad {

/// Bounds of a spending without gap: of epsilon at a delta, or of delta at an epsilon.
using IdealBounds = std::function<Interval(const Spending& ideal, double at)>;

/// Outside an event of probability spending.failure the two laws differ by at most spending.gap_divergence in Renyi
/// divergence, so by Markov their log-ratio passes lambda = gap_divergence + log(1 / beta) / (gap_order - 1) with
/// probability at most beta, for every beta. If the ideal release is (e, d)-DP, the real one is therefore
///
///     (e + 2 lambda,  e^lambda d + (1 + e^(e + lambda)) (beta + failure))-DP
///
/// (docs/proofs/lattice_gaussian.md, section 4), and the other way round for lower ends.
Interval with_gap_epsilon(const Spending& spending, double delta, const IdealBounds& ideal_epsilon);
Interval with_gap_delta(const Spending& spending, double epsilon, const IdealBounds& ideal_delta);
/// The upper ends alone, nearly always with one question to the ideal bounds.
double with_gap_epsilon_upper(const Spending& spending, double delta, const IdealBounds& ideal_epsilon);
double with_gap_delta_upper(const Spending& spending, double epsilon, const IdealBounds& ideal_delta);

}  // namespace hushgrad
