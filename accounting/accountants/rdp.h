// Renyi differential privacy: one number an order, added up over steps. Upper bounds only; slower to grow wrong than to
// compute, so it is the independent check of the tighter accountant and its fallback for extreme parameters.
#pragma once

#include <span>

#include "accounting/accountants/accountant.h"
#include "accounting/accountants/spending.h"

namespace hushgrad {

/// Renyi divergence of `order` > 1 (fractional allowed) of one Poisson-sampled Gaussian step under add-or-remove-one:
/// the maximum over both directions (Mironov, Talwar, Zhang 2019, Theorem 4 and Corollary 7), rounded up.
/// 0 <= sampling_probability <= 1, noise_multiplier >= 0; infinite for noise_multiplier 0, 0 for probability 0.
double sampled_gaussian_rdp(double sampling_probability, double noise_multiplier, double order);

/// The orders used where the caller names none: 1.001 ... 1024.
std::span<const double> default_rdp_orders();

/// Upper bounds over the best of `orders`, converted with Canonne, Kamath, Steinke 2020, Proposition 12 (the same as
/// Balle et al. 2020, Theorem 21). The lower ends are not bounded by this method: use 0.
double rdp_epsilon(const Spending& spending, double delta, std::span<const double> orders = default_rdp_orders());
double rdp_delta(const Spending& spending, double epsilon, std::span<const double> orders = default_rdp_orders());

/// Accountant "rdp": upper ends by RDP, lower ends 0 unless something was released without noise.
class RdpAccountant : public Accountant {
 public:
  Interval epsilon(const Event& event, double delta, Adjacency adjacency = Adjacency::add_or_remove_one) const override;
  Interval delta(const Event& event, double epsilon, Adjacency adjacency = Adjacency::add_or_remove_one) const override;
};

}  // namespace hushgrad
