#include "torch_ext/rules/direct_convolution.h"

#include <algorithm>
#include <cstring>

#include "torch_ext/rules/vector_units.h"

namespace hushgrad {
namespace {

constexpr std::int64_t kLanes = 16;  // channels are padded to this: one vector of AVX-512, two of AVX2

/// One block: `taps` positions of the patch, `vectors` vectors of output channels.
struct Block {
  const float* image;             // padded, of the group
  const std::int64_t* offsets;    // [J]
  const float* backprop;          // [positions, lanes], at the block's first channel
  std::int64_t lanes;
  std::array<std::int64_t, 3> out, stride, padded;
  float* gradient;                // [J, lanes], at the block's first channel
};

template <typename V>
[[gnu::always_inline]] inline void store(float* to, const V& from) { __builtin_memcpy(to, &from, sizeof(V)); }

// The body is the same for every instruction set; the attribute of the function that it is inlined into decides.
template <typename V, int N, int J>
[[gnu::always_inline]] inline void multiply(const Block& block) {
  constexpr std::int64_t width = sizeof(V) / sizeof(float);
  V sums[J][N];
  for (int j = 0; j < J; ++j) {
    for (int n = 0; n < N; ++n) load(sums[j][n], block.gradient + j * block.lanes + n * width);
  }
  const float* g = block.backprop;
  for (std::int64_t z = 0; z < block.out[0]; ++z) {
    for (std::int64_t y = 0; y < block.out[1]; ++y) {
      const float* line = block.image + (z * block.stride[0] * block.padded[1] + y * block.stride[1]) * block.padded[2];
      const float* x[J];
      for (int j = 0; j < J; ++j) x[j] = line + block.offsets[j];
      for (std::int64_t i = 0; i < block.out[2]; ++i) {
        V values[N];
        for (int n = 0; n < N; ++n) load(values[n], g + n * width);
        for (int j = 0; j < J; ++j) {
          const float factor = x[j][i * block.stride[2]];
          for (int n = 0; n < N; ++n) sums[j][n] += values[n] * factor;
        }
        g += block.lanes;
      }
    }
  }
  for (int j = 0; j < J; ++j) {
    for (int n = 0; n < N; ++n) store(block.gradient + j * block.lanes + n * width, sums[j][n]);
  }
}

using Kernel = void (*)(const Block&);

#if defined(__x86_64__)
struct Avx512 {
  using Vector = V16;
  static constexpr int most_taps = 12, most_vectors = 2;
  template <int N, int J>
  HUSHGRAD_AVX512 static void run(const Block& block) { multiply<V16, N, J>(block); }
};
struct Avx2 {
  using Vector = V8;
  static constexpr int most_taps = 6, most_vectors = 2;
  template <int N, int J>
  HUSHGRAD_AVX2 static void run(const Block& block) { multiply<V8, N, J>(block); }
};
#endif
struct Plain {
  using Vector = V4;
  static constexpr int most_taps = 6, most_vectors = 2;
  template <int N, int J>
  static void run(const Block& block) { multiply<V4, N, J>(block); }
};

template <typename Isa, int N, int... J>
Kernel with_taps(int taps, std::integer_sequence<int, J...>) {
  static constexpr Kernel kernels[] = {&Isa::template run<N, J + 1>...};
  return kernels[taps - 1];
}

struct Kernels {
  Kernel (*of)(int vectors, int taps);
  int most_taps, most_vectors;
  std::int64_t width;
};

template <typename Isa>
Kernels kernels_of() {
  return {[](int vectors, int taps) {
            using Taps = std::make_integer_sequence<int, Isa::most_taps>;
            return vectors == 1 ? with_taps<Isa, 1>(taps, Taps{}) : with_taps<Isa, 2>(taps, Taps{});
          },
          Isa::most_taps, Isa::most_vectors, static_cast<std::int64_t>(sizeof(typename Isa::Vector) / sizeof(float))};
}

const Kernels& kernels() {
  static const Kernels chosen = [] {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) return kernels_of<Avx512>();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return kernels_of<Avx2>();
#endif
    return kernels_of<Plain>();
  }();
  return chosen;
}

}  // namespace

DirectConvolution::DirectConvolution(const ConvolutionGeometry& geometry) : geometry_(geometry) {
  const std::int64_t per_group = geometry.out_channels / geometry.groups;
  lanes_ = (per_group + kLanes - 1) / kLanes * kLanes;
  for (int d = 0; d < 3; ++d) {
    // As far as the last tap of the last position reaches; what lies beyond is never read.
    padded_[d] = (geometry.out[d] - 1) * geometry.stride[d] + (geometry.kernel[d] - 1) * geometry.dilation[d] + 1;
  }
  offsets_.reserve(geometry.patch());
  for (std::int64_t row = 0; row < geometry.patch(); ++row) {
    const std::int64_t channel = row / geometry.taps(), tap = row % geometry.taps();
    const std::int64_t z = tap / (geometry.kernel[1] * geometry.kernel[2]) * geometry.dilation[0];
    const std::int64_t y = tap / geometry.kernel[2] % geometry.kernel[1] * geometry.dilation[1];
    const std::int64_t x = tap % geometry.kernel[2] * geometry.dilation[2];
    offsets_.push_back(((channel * padded_[0] + z) * padded_[1] + y) * padded_[2] + x);
  }
  image_.assign(geometry.in_channels * padded_[0] * padded_[1] * padded_[2], 0.0f);
  backprop_.assign(geometry.groups * geometry.out_positions() * lanes_, 0.0f);
}

bool DirectConvolution::suits(const ConvolutionGeometry& geometry) { return geometry.out_channels / geometry.groups >= 8; }

void DirectConvolution::pad(const float* image) {
  // The frame stays zero: every image covers the same inner part.
  const auto& s = geometry_;
  for (std::int64_t c = 0; c < s.in_channels; ++c) {
    for (std::int64_t z = 0; z < padded_[0]; ++z) {
      const std::int64_t from_z = z - s.padding[0];
      if (from_z < 0 || from_z >= s.in[0]) continue;
      for (std::int64_t y = 0; y < padded_[1]; ++y) {
        const std::int64_t from_y = y - s.padding[1];
        if (from_y < 0 || from_y >= s.in[1]) continue;
        const std::int64_t begin = std::max<std::int64_t>(s.padding[2], 0), from_x = std::max<std::int64_t>(-s.padding[2], 0);
        const std::int64_t count = std::min(padded_[2] - begin, s.in[2] - from_x);
        if (count <= 0) continue;
        std::memcpy(&image_[((c * padded_[0] + z) * padded_[1] + y) * padded_[2] + begin], image + ((c * s.in[0] + from_z) * s.in[1] + from_y) * s.in[2] + from_x,
                    count * sizeof(float));
      }
    }
  }
}

void DirectConvolution::transpose(const float* backprop) {
  const std::int64_t per_group = geometry_.out_channels / geometry_.groups, positions = geometry_.out_positions();
  constexpr std::int64_t tile = 16;
  for (std::int64_t group = 0; group < geometry_.groups; ++group) {
    const float* from = backprop + group * per_group * positions;
    float* to = backprop_.data() + group * positions * lanes_;
    for (std::int64_t o0 = 0; o0 < per_group; o0 += tile) {
      for (std::int64_t t0 = 0; t0 < positions; t0 += tile) {
        const std::int64_t o1 = std::min(o0 + tile, per_group), t1 = std::min(t0 + tile, positions);
        for (std::int64_t t = t0; t < t1; ++t) {
          for (std::int64_t o = o0; o < o1; ++o) to[t * lanes_ + o] = from[o * positions + t];
        }
      }
    }
  }
}

void DirectConvolution::accumulate(const float* image, const float* backprop, float* gradient) {
  pad(image);
  transpose(backprop);
  const Kernels& k = kernels();
  const std::int64_t patch = geometry_.patch(), positions = geometry_.out_positions();
  const std::int64_t blocks = (patch + k.most_taps - 1) / k.most_taps;  // of nearly equal size
  for (std::int64_t group = 0; group < geometry_.groups; ++group) {
    const float* planes = image_.data() + group * (geometry_.in_channels / geometry_.groups) * padded_[0] * padded_[1] * padded_[2];
    for (std::int64_t channel = 0; channel < lanes_;) {
      const int vectors = static_cast<int>(std::min<std::int64_t>(k.most_vectors, (lanes_ - channel) / k.width));
      for (std::int64_t b = 0; b < blocks; ++b) {
        const std::int64_t first = b * patch / blocks, last = (b + 1) * patch / blocks;
        const Block block{planes, offsets_.data() + first, backprop_.data() + group * positions * lanes_ + channel, lanes_,
                          geometry_.out, geometry_.stride, padded_, gradient + (group * patch + first) * lanes_ + channel};
        k.of(vectors, static_cast<int>(last - first))(block);
      }
      channel += vectors * k.width;
    }
  }
}

void DirectConvolution::unpack(const float* gradient, float* weight_gradient) const {
  const std::int64_t per_group = geometry_.out_channels / geometry_.groups, patch = geometry_.patch();
  for (std::int64_t group = 0; group < geometry_.groups; ++group) {
    for (std::int64_t o = 0; o < per_group; ++o) {
      for (std::int64_t row = 0; row < patch; ++row) {
        weight_gradient[(group * per_group + o) * patch + row] = gradient[(group * patch + row) * lanes_ + o];
      }
    }
  }
}

}  // namespace hushgrad
