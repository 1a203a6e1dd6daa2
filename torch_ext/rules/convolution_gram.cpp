#include "torch_ext/rules/convolution_gram.h"

#include <algorithm>
#include <limits>

#include "torch_ext/rules/gemm.h"
#include "torch_ext/rules/vector_units.h"

namespace hushgrad {
namespace {

constexpr std::int64_t kMostPositions = 2048;  // 16 MiB of float32 a matrix and thread
constexpr std::int64_t kPanel = 64;  // columns of a product at least: fewer leave the multiplier idle

/// products: [n, n] = x^T x for x: [channels, n]; on and above the diagonal, and what little is below it within a panel.
template <typename T>
void upper_products(std::int64_t channels, std::int64_t n, const T* x, T* products) {
  for (std::int64_t first = 0; first < n; first += kPanel) {
    gemm_tn(std::min(kPanel, n - first), n - first, channels, x + first, n, x + first, n, products + first * n + first, n);
  }
}

/// Outputs [first, last) of a line whose tap at `offset` lies inside an input line of length `in`.
struct Reach {
  std::int64_t first, last;
};

Reach reach(std::int64_t offset, std::int64_t stride, std::int64_t in, std::int64_t out) {
  const std::int64_t first = offset >= 0 ? 0 : (-offset + stride - 1) / stride;
  const std::int64_t last = offset >= in ? 0 : (in - 1 - offset) / stride + 1;
  return {std::min(first, out), std::clamp<std::int64_t>(last, std::min(first, out), out)};
}

/// The input line under a line of outputs for one tap; -1 outside.
std::int64_t input_line(const ConvolutionGeometry& s, std::int64_t line, std::int64_t kz, std::int64_t ky) {
  const std::int64_t z = line / s.out[1] * s.stride[0] - s.padding[0] + kz * s.dilation[0];
  const std::int64_t y = line % s.out[1] * s.stride[1] - s.padding[1] + ky * s.dilation[1];
  return z < 0 || z >= s.in[0] || y < 0 || y >= s.in[1] ? -1 : z * s.in[1] + y;
}

// Of a line with itself only what is on and above the diagonal: the rest is the same, and not there.
constexpr std::int64_t first_above(bool same_line, std::int64_t x) { return same_line ? x : 0; }

/// sums: [width, width] += products of the pixels under two lines of outputs, over the taps of one input line each.
template <typename T>
[[gnu::always_inline]] inline void add_taps(const ConvolutionGeometry& s, bool same_line, const T* products, T* sums) {
  const std::int64_t width = s.out[2], stride = s.stride[2], pixels = s.in_positions();
  for (std::int64_t kx = 0; kx < s.kernel[2]; ++kx) {
    const std::int64_t offset = kx * s.dilation[2] - s.padding[2];
    const Reach r = reach(offset, stride, s.in[2], width);
    for (std::int64_t x = r.first; x < r.last; ++x) {
      const T* from = products + (x * stride + offset) * pixels + offset;
      T* to = sums + x * width;
      const std::int64_t first = std::max(r.first, first_above(same_line, x));
      if (stride == 1) {
        for (std::int64_t y = first; y < r.last; ++y) to[y] += from[y];
      } else {
        for (std::int64_t y = first; y < r.last; ++y) to[y] += from[y * stride];
      }
    }
  }
}

/// sum over x, y of patches[x, y] rows[x, y] for x: [width, width] and rows with their own stride. lanes: [width]
template <typename T>
[[gnu::always_inline]] inline double dot(std::int64_t width, bool same_line, const T* patches, const T* rows, std::int64_t stride, T* lanes) {
  std::fill(lanes, lanes + width, T(0));
  for (std::int64_t x = 0; x < width; ++x) {
    for (std::int64_t y = first_above(same_line, x); y < width; ++y) lanes[y] += patches[x * width + y] * rows[x * stride + y];
  }
  double total = 0;
  for (std::int64_t y = 0; y < width; ++y) total += static_cast<double>(lanes[y]);
  return total;
}

HUSHGRAD_CLONES void add_taps_of(const ConvolutionGeometry& s, bool same_line, const float* products, float* sums) {
  add_taps(s, same_line, products, sums);
}
HUSHGRAD_CLONES void add_taps_of(const ConvolutionGeometry& s, bool same_line, const double* products, double* sums) {
  add_taps(s, same_line, products, sums);
}
HUSHGRAD_CLONES double dot_of(std::int64_t width, bool same_line, const float* patches, const float* rows, std::int64_t stride, float* lanes) {
  return dot(width, same_line, patches, rows, stride, lanes);
}
HUSHGRAD_CLONES double dot_of(std::int64_t width, bool same_line, const double* patches, const double* rows, std::int64_t stride, double* lanes) {
  return dot(width, same_line, patches, rows, stride, lanes);
}

}  // namespace

template <typename T>
ConvolutionGram<T>::ConvolutionGram(const ConvolutionGeometry& geometry)
    : geometry_(geometry),
      of_pixels_(static_cast<std::size_t>(geometry.in_positions() * geometry.in_positions())),
      of_backprops_(static_cast<std::size_t>(geometry.out_positions() * geometry.out_positions())),
      of_patches_(static_cast<std::size_t>(geometry.out[2] * geometry.out[2])),
      lanes_(static_cast<std::size_t>(geometry.out[2])) {}

template <typename T>
const T* ConvolutionGram<T>::patch_products(std::int64_t line, std::int64_t other) {
  const auto& s = geometry_;
  const std::int64_t pixels = s.in_positions();
  std::fill(of_patches_.begin(), of_patches_.end(), T(0));
  for (std::int64_t kz = 0; kz < s.kernel[0]; ++kz) {
    for (std::int64_t ky = 0; ky < s.kernel[1]; ++ky) {
      const std::int64_t from = input_line(s, line, kz, ky), to = input_line(s, other, kz, ky);
      if (from < 0 || to < 0) continue;
      const T* products = of_pixels_.data() + from * s.in[2] * pixels + to * s.in[2];
      add_taps_of(s, line == other, products, of_patches_.data());
    }
  }
  return of_patches_.data();
}

template <typename T>
GramSum ConvolutionGram<T>::squared_norm(const T* image, const T* backprop) {
  const auto& s = geometry_;
  const std::int64_t width = s.out[2], positions = s.out_positions(), lines = positions / width;
  const std::int64_t channels = s.in_channels / s.groups, outputs = s.out_channels / s.groups;
  GramSum sum;
  for (std::int64_t group = 0; group < s.groups; ++group) {
    upper_products(channels, s.in_positions(), image + group * channels * s.in_positions(), of_pixels_.data());
    upper_products(outputs, positions, backprop + group * outputs * positions, of_backprops_.data());
    for (std::int64_t line = 0; line < lines; ++line) {
      const T* rows = of_backprops_.data() + line * width * (positions + 1);
      const T* patches = patch_products(line, line);
      double diagonal = 0;
      for (std::int64_t x = 0; x < width; ++x) diagonal += static_cast<double>(patches[x * (width + 1)]) * static_cast<double>(rows[x * (positions + 1)]);
      double total = 2 * dot_of(width, true, patches, rows, positions, lanes_.data()) - diagonal;
      for (std::int64_t other = line + 1; other < lines; ++other) {
        rows += width;
        total += 2 * dot_of(width, false, patch_products(line, other), rows, positions, lanes_.data());
      }
      sum.squared_norm += total;
      sum.diagonal += diagonal;
    }
  }
  return sum;
}

template class ConvolutionGram<float>;
template class ConvolutionGram<double>;

double convolution_gram_cost(const ConvolutionGeometry& s) {
  if (std::max(s.in_positions(), s.out_positions()) > kMostPositions) return std::numeric_limits<double>::infinity();
  const double in = static_cast<double>(s.in_positions()), out = static_cast<double>(s.out_positions());
  return (in * in * static_cast<double>(s.in_channels) + out * out * static_cast<double>(s.out_channels + s.taps() * s.groups)) / 2;
}

}  // namespace hushgrad
