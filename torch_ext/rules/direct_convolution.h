// The weight gradient of one image, for kernels that keep samples apart.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "torch_ext/rules/convolution_geometry.h"

namespace hushgrad {

/// gradient[o, c, k] = sum over positions t of backprop[o, t] * image[c, t + k], without forming patches: blocks of output channels
/// in vector registers times blocks of (c, k), summed over all positions before anything is stored. float32; AVX-512, AVX2 or plain,
/// whatever the processor has.
///
/// One object a thread: it holds padded and transposed copies of the image being worked on.
class DirectConvolution {
 public:
  explicit DirectConvolution(const ConvolutionGeometry& geometry);

  /// Whether blocks of this shape fill the registers well enough: at least 8 output channels a group.
  static bool suits(const ConvolutionGeometry& geometry);

  /// Number of floats that accumulate() fills: channels are rounded up to whole vectors.
  std::int64_t size() const { return geometry_.groups * geometry_.patch() * lanes_; }

  /// gradient: [groups, patch, lanes] += that of one image. image: [C, in...], backprop: [O, out...], contiguous.
  void accumulate(const float* image, const float* backprop, float* gradient);

  /// [groups, patch, lanes] -> [out_channels, patch].
  void unpack(const float* gradient, float* weight_gradient) const;

 private:
  void pad(const float* image);
  void transpose(const float* backprop);

  ConvolutionGeometry geometry_;
  std::int64_t lanes_;                   // output channels of a group, rounded up
  std::array<std::int64_t, 3> padded_;   // spatial size of the padded image
  std::vector<std::int64_t> offsets_;    // [patch]: where tap (c, k) starts in the padded image of a group
  std::vector<float> image_, backprop_;  // [C, padded...], [groups, positions, lanes]
};

}  // namespace hushgrad
