// The squared norm of a convolution's weight gradient, of one image, without forming gradient or patches.
#pragma once

#include <cstdint>
#include <vector>

#include "torch_ext/rules/convolution_geometry.h"
#include "torch_ext/rules/gram_kernel.h"

namespace hushgrad {

/// With a patch p_t = (x[c, t + k])_{c,k} of the image at each position t,
///
///     || sum_t g_t p_t^T ||^2 = sum_{t,s} (g_t . g_s) (p_t . p_s),    p_t . p_s = sum_k x[:, t + k] . x[:, s + k].
///
/// All products of patches are thus sums over taps of products of pixels: T^2 C multiply-adds and T^2 additions a tap, where patches
/// one by one take T^2 C a tap (Bu et al. 2022, arXiv:2205.10683). Worth it where positions are few and channels many.
///
/// T: float or double. One object a thread: it holds the products of the image being worked on.
template <typename T>
class ConvolutionGram {
 public:
  explicit ConvolutionGram(const ConvolutionGeometry& geometry);

  /// image: [C, in...], backprop: [O, out...], contiguous. `diagonal` as for linear layers: where it is far above the norm, rows
  /// cancel each other and the norm has lost that many digits.
  GramSum squared_norm(const T* image, const T* backprop);

 private:
  const T* patch_products(std::int64_t line, std::int64_t other);

  ConvolutionGeometry geometry_;
  std::vector<T> of_pixels_, of_backprops_;  // [in, in] and [out, out], on and above the diagonal
  std::vector<T> of_patches_;                // [line, line] of two lines of positions
  std::vector<T> lanes_;                     // [line]
};

/// Multiply-adds an image. Infinite where a matrix would take more memory than a thread should.
double convolution_gram_cost(const ConvolutionGeometry& geometry);

}  // namespace hushgrad
