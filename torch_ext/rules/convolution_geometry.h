// The sizes of a convolution.
#pragma once

#include <array>
#include <cstdint>

namespace hushgrad {

/// A convolution as three spatial dimensions; missing ones have size 1.
struct ConvolutionGeometry {
  std::array<std::int64_t, 3> in, out, kernel, stride, padding, dilation;
  std::int64_t groups, in_channels, out_channels;  // channels of all groups

  std::int64_t in_positions() const { return in[0] * in[1] * in[2]; }
  std::int64_t out_positions() const { return out[0] * out[1] * out[2]; }
  std::int64_t taps() const { return kernel[0] * kernel[1] * kernel[2]; }
  std::int64_t patch() const { return in_channels / groups * taps(); }
};

}  // namespace hushgrad
