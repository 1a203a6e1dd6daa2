#include "dpcore/clipping/adaptive_clipping.h"

#include <gtest/gtest.h>

#include <cmath>

#include "dpcore/clipping/clipping_pass.h"
#include "dpcore/error.h"
#include "dpcore/noise/lattice_gaussian.h"

namespace hushgrad {
namespace {

AdaptiveClippingOptions options() {
  return {.target_unclipped_quantile = 0.5, .clipbound_learning_rate = 0.2, .min_clipbound = 0.1, .max_clipbound = 10, .unclipped_num_std = 5};
}

/// The bound after one step in which `unclipped` of `batch` samples were below it, without noise on the count.
double bound_after(std::int64_t unclipped, std::int64_t batch, double from = 1.0) {
  AdaptiveClipping adaptive(options(), from);
  ClippingPass pass(from);
  std::vector<double> squares(static_cast<std::size_t>(batch), 4 * from * from);
  for (std::int64_t b = 0; b < unclipped; ++b) squares[static_cast<std::size_t>(b)] = 0;
  pass.count(pass.factors(squares));
  float count = 0;
  Csprng rng;
  adaptive.update(Noise::add(pass.finish_count(count), 0.0, 1.0, rng), static_cast<double>(batch));
  return adaptive.max_grad_norm();
}

TEST(AdaptiveClipping, MovesGeometricallyTowardsTheQuantile) {
  EXPECT_NEAR(bound_after(50, 100), 1.0, 1e-12);
  EXPECT_NEAR(bound_after(100, 100), std::exp(-0.2 * 0.5), 1e-12);
  EXPECT_NEAR(bound_after(0, 100), std::exp(0.2 * 0.5), 1e-12);
}

TEST(AdaptiveClipping, StaysWithinItsLimits) {
  EXPECT_EQ(bound_after(0, 100, 10.0), 10.0);
  EXPECT_EQ(bound_after(100, 100, 0.1), 0.1);
}

TEST(AdaptiveClipping, GradientAndCountCostWhatWasPromised) {
  const AdaptiveClipping adaptive(options(), 1.0);
  for (double z : {0.1, 1.0, 3.0, 9.9}) {
    const double gradient = adaptive.gradient_noise_multiplier(z), count = adaptive.count_noise_multiplier();
    // Two Gaussians on one batch: squares of sensitivity over deviation add up.
    const double together = 1 / (gradient * gradient) + 1 / (count * count);
    EXPECT_LE(together, 1 / (z * z));
    EXPECT_NEAR(together * z * z, 1.0, 1e-12);
  }
  EXPECT_EQ(adaptive.gradient_noise_multiplier(0), 0.0);
  EXPECT_THROW((void)adaptive.gradient_noise_multiplier(10.0), InvalidArgument);
}

TEST(AdaptiveClipping, OptionsOutsideTheirDomainAreRefused) {
  const auto refused = [](auto change) {
    AdaptiveClippingOptions changed = options();
    change(changed);
    EXPECT_THROW(AdaptiveClipping(changed, 1.0), InvalidArgument);
  };
  refused([](auto& o) { o.target_unclipped_quantile = 0; });
  refused([](auto& o) { o.target_unclipped_quantile = 1; });
  refused([](auto& o) { o.clipbound_learning_rate = -1; });
  refused([](auto& o) { o.min_clipbound = 0; });
  refused([](auto& o) { o.max_clipbound = 0.01; });
  refused([](auto& o) { o.max_clipbound = 0.5; });
  refused([](auto& o) { o.unclipped_num_std = 0; });
  refused([](auto& o) { o.unclipped_num_std = std::nan(""); });
}

}  // namespace
}  // namespace hushgrad
