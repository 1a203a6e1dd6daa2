#include "torch_ext/rules/gram.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace hushgrad {
namespace {

at::Tensor by_gradient(const at::Tensor& activations, const at::Tensor& backprops) {
  return backprops.to(at::kDouble).transpose(1, 2).bmm(activations.to(at::kDouble)).square().sum({1, 2});
}

TEST(GramByLibrary, AgreesWithTheGradientAndWithTheKernel) {
  at::manual_seed(0);
  const at::Tensor a = at::randn({3, 9, 5}), g = at::randn({3, 9, 7}), expected = by_gradient(a, g);
  EXPECT_TRUE(at::allclose(gram_squared_norms_by_library(a, g), expected, 1e-5));
  EXPECT_TRUE(at::allclose(gram_squared_norms(a.reshape({27, 5}), g.reshape({27, 7}), RowMap{0, true}, 3), expected, 1e-5));
}

TEST(GramByLibrary, FormsTheGradientWhereRowsCancel) {
  at::manual_seed(0);
  at::Tensor a = at::randn({3, 8, 6}), g = at::randn({3, 1, 4}).repeat({1, 8, 1});
  a[1] += 3000;
  g[1].narrow(0, 0, 4).neg_();
  EXPECT_TRUE(at::allclose(gram_squared_norms_by_library(a, g), by_gradient(a, g), 1e-5));
}

TEST(GramByLibrary, KeepsNotANumberToItsSample) {
  at::Tensor a = at::ones({2, 4, 3});
  const at::Tensor g = at::ones({2, 4, 2});
  a[1][2][0] = std::numeric_limits<float>::quiet_NaN();
  const at::Tensor norms = gram_squared_norms_by_library(a, g);
  EXPECT_DOUBLE_EQ(norms[0].item<double>(), 6 * 16);
  EXPECT_TRUE(std::isnan(norms[1].item<double>()));
}

}  // namespace
}  // namespace hushgrad
