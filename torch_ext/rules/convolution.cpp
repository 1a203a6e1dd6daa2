// Convolutions in one to three dimensions, grouped, dilated, transposed. Sample b's gradient is the product of its backprop
// with its patches. Three ways, by what they cost:
//   direct   a register-blocked kernel that forms no patches; the gradients are kept for the sum while that is small;
//   Gram     products of pixels and of backprops over the positions, for deep layers with few positions and many channels;
//   patches  block by block in cache, for what the kernel does not take: float64, few channels a group.
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/generated/Functions.h>

#include <algorithm>
#include <array>
#include <utility>

#include "torch_ext/capture/sum_of_products.h"
#include "torch_ext/rules/convolution_gram.h"
#include "torch_ext/rules/direct_convolution.h"
#include "torch_ext/rules/gemm.h"
#include "torch_ext/rules/gram.h"
#include "torch_ext/rules/rule.h"

namespace hushgrad {
namespace {

using torch::autograd::generated::ConvolutionBackward0;

constexpr std::int64_t kPatchBytes = 256 * 1024;  // of one block of patches: half of a second-level cache

/// patches: [patch, count] for out positions [first, first + count) of one image and group. image: [C/groups, in...]
template <typename T>
void gather_patches(const ConvolutionGeometry& s, const T* image, std::int64_t first, std::int64_t count, T* patches) {
  for (std::int64_t row = 0; row < s.patch(); ++row) {
    const std::int64_t channel = row / s.taps(), tap = row % s.taps();
    const std::array<std::int64_t, 3> k{tap / (s.kernel[1] * s.kernel[2]), tap / s.kernel[2] % s.kernel[1], tap % s.kernel[2]};
    const T* plane = image + channel * s.in_positions();
    T* to = patches + row * count;
    std::int64_t position = first;
    while (position < first + count) {
      // One run along the last dimension.
      const std::int64_t x0 = position % s.out[2], y = position / s.out[2] % s.out[1], z = position / (s.out[1] * s.out[2]);
      const std::int64_t run = std::min(s.out[2] - x0, first + count - position);
      const std::int64_t iz = z * s.stride[0] - s.padding[0] + k[0] * s.dilation[0];
      const std::int64_t iy = y * s.stride[1] - s.padding[1] + k[1] * s.dilation[1];
      position += run;
      if (iz < 0 || iz >= s.in[0] || iy < 0 || iy >= s.in[1]) {
        std::fill(to, to + run, T(0));
        to += run;
        continue;
      }
      const T* line = plane + (iz * s.in[1] + iy) * s.in[2];
      const std::int64_t ix0 = x0 * s.stride[2] - s.padding[2] + k[2] * s.dilation[2];
      if (s.stride[2] == 1) {
        const std::int64_t lo = std::clamp<std::int64_t>(-ix0, 0, run), hi = std::clamp<std::int64_t>(s.in[2] - ix0, lo, run);
        std::fill(to, to + lo, T(0));
        std::copy(line + ix0 + lo, line + ix0 + hi, to + lo);
        std::fill(to + hi, to + run, T(0));
      } else {
        for (std::int64_t i = 0; i < run; ++i) {
          const std::int64_t ix = ix0 + i * s.stride[2];
          to[i] = ix >= 0 && ix < s.in[2] ? line[ix] : T(0);
        }
      }
      to += run;
    }
  }
}

/// gradient: [out_channels, patch] += backprop . patches^T of one image. backprop: [out_channels, out...]
template <typename T>
void add_image(const ConvolutionGeometry& s, const T* image, const T* backprop, T* gradient, std::vector<T>& patches) {
  const std::int64_t per_group = s.out_channels / s.groups, positions = s.out_positions();
  const std::int64_t block = std::clamp<std::int64_t>(kPatchBytes / static_cast<std::int64_t>(sizeof(T)) / s.patch(), 32, positions);
  patches.resize(s.patch() * block);
  for (std::int64_t group = 0; group < s.groups; ++group) {
    const T* planes = image + group * (s.in_channels / s.groups) * s.in_positions();
    const T* g = backprop + group * per_group * positions;
    T* to = gradient + group * per_group * s.patch();
    for (std::int64_t first = 0; first < positions; first += block) {
      const std::int64_t count = std::min(block, positions - first);
      gather_patches(s, planes, first, count, patches.data());
      gemm_nt(per_group, s.patch(), count, g + first, positions, patches.data(), count, T(1), to, s.patch());
    }
  }
}

/// images: [N, C, in...], backprops: [N, O, out...] contiguous, N = B*m -> norms [B] float64, and gradients [B, O * patch]
/// if `keep`.
template <typename T>
at::Tensor per_sample_cpu(const ConvolutionGeometry& s, const at::Tensor& images, const at::Tensor& backprops, const RowMap& rows,
                          std::int64_t batch, at::Tensor* keep) {
  const std::int64_t m = images.size(0) / batch, size = s.out_channels * s.patch();
  const T *x = images.const_data_ptr<T>(), *g = backprops.const_data_ptr<T>();
  const std::int64_t x_size = images.numel() / images.size(0), g_size = backprops.numel() / backprops.size(0);
  at::Tensor norms = at::empty({batch}, at::kDouble);
  if (keep) *keep = at::zeros({batch, size}, images.options());
  T* kept = keep ? keep->data_ptr<T>() : nullptr;
  double* out = norms.data_ptr<double>();
  at::parallel_for(0, batch, 1, [&](std::int64_t begin, std::int64_t end) {
    std::vector<T> patches, scratch(kept ? 0 : size);
    for (std::int64_t b = begin; b < end; ++b) {
      T* gradient = kept ? kept + b * size : scratch.data();
      if (!kept) std::fill(scratch.begin(), scratch.end(), T(0));
      for (std::int64_t j = 0; j < m; ++j) {
        const std::int64_t image = rows.major ? b * m + j : j * batch + b;
        add_image(s, x + image * x_size, g + image * g_size, gradient, patches);
      }
      out[b] = sum_of_products(gradient, gradient, size);
    }
  });
  return norms;
}

/// As per_sample_cpu, by the direct kernel. keep: [B, DirectConvolution::size()].
at::Tensor per_sample_direct(const ConvolutionGeometry& s, const at::Tensor& images, const at::Tensor& backprops, const RowMap& rows,
                             std::int64_t batch, at::Tensor* keep) {
  const std::int64_t m = images.size(0) / batch, size = DirectConvolution(s).size();
  const float *x = images.const_data_ptr<float>(), *g = backprops.const_data_ptr<float>();
  const std::int64_t x_size = images.numel() / images.size(0), g_size = backprops.numel() / backprops.size(0);
  at::Tensor norms = at::empty({batch}, at::kDouble);
  if (keep) *keep = at::empty({batch, size}, images.options());
  float* kept = keep ? keep->data_ptr<float>() : nullptr;
  double* out = norms.data_ptr<double>();
  at::parallel_for(0, batch, 1, [&](std::int64_t begin, std::int64_t end) {
    DirectConvolution convolution(s);
    std::vector<float> scratch(kept ? 0 : size);
    for (std::int64_t b = begin; b < end; ++b) {
      float* gradient = kept ? kept + b * size : scratch.data();
      std::fill(gradient, gradient + size, 0.0f);
      for (std::int64_t j = 0; j < m; ++j) {
        const std::int64_t image = rows.major ? b * m + j : j * batch + b;
        convolution.accumulate(x + image * x_size, g + image * g_size, gradient);
      }
      out[b] = sum_of_products(gradient, gradient, size);
    }
  });
  return norms;
}

/// Squared norms by Gram matrices over the positions of each image; one image a sample.
template <typename T>
at::Tensor gram_norms(const ConvolutionGeometry& s, const at::Tensor& images, const at::Tensor& backprops) {
  const std::int64_t batch = images.size(0), x_size = images.numel() / batch, g_size = backprops.numel() / batch;
  const T *x = images.const_data_ptr<T>(), *g = backprops.const_data_ptr<T>();
  at::Tensor norms = at::empty({batch}, at::kDouble);
  double* out = norms.data_ptr<double>();
  at::parallel_for(0, batch, 1, [&](std::int64_t begin, std::int64_t end) {
    ConvolutionGram<T> gram(s);
    std::vector<T> patches, gradient;
    for (std::int64_t b = begin; b < end; ++b) {
      GramSum sum = gram.squared_norm(x + b * x_size, g + b * g_size);
      if (sum.squared_norm < kCancelled * sum.diagonal) {
        gradient.assign(static_cast<std::size_t>(s.out_channels * s.patch()), T(0));
        add_image(s, x + b * x_size, g + b * g_size, gradient.data(), patches);
        sum.squared_norm = sum_of_products(gradient.data(), gradient.data(), s.out_channels * s.patch());
      }
      out[b] = sum.squared_norm < 0 ? 0.0 : sum.squared_norm;
    }
  });
  return norms;
}

struct Arguments {
  std::vector<std::int64_t> stride, padding, dilation, output_padding;
  std::int64_t groups;
  bool transposed;
};

class ConvolutionContribution final : public Contribution {
 public:
  ConvolutionContribution(at::Tensor input, at::Tensor weight, at::Tensor backprop, Arguments arguments, RowMap rows, std::int64_t batch)
      : input_(std::move(input)), weight_(std::move(weight)), backprop_(std::move(backprop)),
        arguments_(std::move(arguments)), rows_(rows), batch_(batch) {}

  at::Tensor squared_norms() override {
    if (!native()) {
      kept_ = loop();
      return Instantiated(kept_).squared_norms();
    }
    const at::Tensor x = input_.contiguous(), g = backprop_.contiguous();
    const ConvolutionGeometry s = geometry(images(x, g), backprops(x, g));
    const bool keep = may_keep();
    if (prefers_gram(s, keep)) {
      return x.scalar_type() == at::kDouble ? gram_norms<double>(s, images(x, g), backprops(x, g)) : gram_norms<float>(s, images(x, g), backprops(x, g));
    }
    at::Tensor flat;
    at::Tensor norms = run_native(s, x, g, keep ? &flat : nullptr);
    if (keep) hold(flat);
    return norms;
  }

  at::Tensor weighted_sum(const SampleFactors& factors) override {
    if (packed_.defined()) return unpacked(Instantiated(packed_).weighted_sum(factors));
    if (kept_.defined()) return Instantiated(kept_).weighted_sum(factors);
    at::Tensor g = at_least_float(std::exchange(backprop_, {})), x = at_least_float(std::exchange(input_, {}));
    std::vector<std::int64_t> shape(g.dim(), 1);
    shape[0] = g.size(0);
    const std::int64_t m = g.size(0) / batch_;
    const at::Tensor f = factors.factors.to(g.scalar_type());
    g = scaled(std::move(g), (rows_.major ? f.repeat_interleave(m) : f.repeat({m})).view(shape));
    if (factors.omitted.defined()) {
      g = g.clone();
      x = x.clone();
      by_sample(g, rows_, batch_).index_fill_(0, factors.omitted, 0);
      by_sample(x, rows_, batch_).index_fill_(0, factors.omitted, 0);
    }
    return library_gradient(x, g);
  }

  at::Tensor per_sample() override {
    if (packed_.defined()) {
      std::vector<at::Tensor> rows;
      for (std::int64_t b = 0; b < batch_; ++b) rows.push_back(unpacked(packed_[b]));
      return at::stack(rows);
    }
    if (kept_.defined()) return kept_;
    if (!native()) return loop();
    const at::Tensor x = input_.contiguous(), g = backprop_.contiguous();
    at::Tensor flat;
    run_native(geometry(images(x, g), backprops(x, g)), x, g, &flat);
    hold(flat);
    return per_sample();
  }

 private:
  bool native() const {
    return input_.is_cpu() && (input_.scalar_type() == at::kFloat || input_.scalar_type() == at::kDouble) &&
           backprop_.scalar_type() == input_.scalar_type();
  }

  // A transposed convolution is the gradient of an ordinary one: input and backprop change places.
  const at::Tensor& images(const at::Tensor& x, const at::Tensor& g) const { return arguments_.transposed ? g : x; }
  const at::Tensor& backprops(const at::Tensor& x, const at::Tensor& g) const { return arguments_.transposed ? x : g; }

  // Kept gradients make the sum a matrix-vector product; they replace input and backprop, so about that is their allowance. Beyond it
  // the Gram matrices take at most two fifths of what a gradient does.
  bool may_keep() const { return batch_ * weight_.numel() * 4 <= 5 * (input_.numel() + backprop_.numel()); }

  // The Gram matrices, against writing and reading a kept gradient, which takes as long as some 16 multiply-adds a value, or against
  // forming the gradients once more than the library does anyway.
  bool prefers_gram(const ConvolutionGeometry& s, bool keep) const {
    if (input_.size(0) != batch_) return false;
    const double size = static_cast<double>(s.out_channels * s.patch());
    return convolution_gram_cost(s) < size * (keep ? 16.0 : static_cast<double>(s.out_positions()));
  }

  bool direct(const ConvolutionGeometry& s) const { return input_.scalar_type() == at::kFloat && DirectConvolution::suits(s); }

  at::Tensor run_native(const ConvolutionGeometry& s, const at::Tensor& x, const at::Tensor& g, at::Tensor* flat) const {
    if (x.scalar_type() == at::kDouble) return per_sample_cpu<double>(s, images(x, g), backprops(x, g), rows_, batch_, flat);
    if (direct(s)) return per_sample_direct(s, images(x, g), backprops(x, g), rows_, batch_, flat);
    return per_sample_cpu<float>(s, images(x, g), backprops(x, g), rows_, batch_, flat);
  }

  void hold(const at::Tensor& flat) {
    const at::Tensor x = input_, g = backprop_;
    geometry_ = geometry(images(x, g), backprops(x, g));
    input_.reset();
    backprop_.reset();
    if (x.scalar_type() == at::kFloat && DirectConvolution::suits(geometry_)) {
      packed_ = flat;
      return;
    }
    std::vector<std::int64_t> shape{batch_};
    for (std::int64_t size : weight_.sizes()) shape.push_back(size);
    kept_ = flat.view(shape);
  }

  at::Tensor unpacked(const at::Tensor& flat) const {
    at::Tensor gradient = at::empty(weight_.sizes(), flat.options());
    DirectConvolution(geometry_).unpack(flat.const_data_ptr<float>(), gradient.mutable_data_ptr<float>());
    return gradient;
  }

  ConvolutionGeometry geometry(const at::Tensor& images, const at::Tensor& backprops) const {
    ConvolutionGeometry s;
    const std::int64_t spatial = images.dim() - 2;
    for (std::int64_t i = 0; i < 3; ++i) {
      const std::int64_t at = i - (3 - spatial);
      const bool present = at >= 0;
      s.in[i] = present ? images.size(at + 2) : 1;
      s.out[i] = present ? backprops.size(at + 2) : 1;
      s.kernel[i] = present ? weight_.size(at + 2) : 1;
      s.stride[i] = present ? arguments_.stride[at] : 1;
      s.padding[i] = present ? arguments_.padding[at] : 0;
      s.dilation[i] = present ? arguments_.dilation[at] : 1;
    }
    s.groups = arguments_.groups;
    s.in_channels = images.size(1);
    s.out_channels = backprops.size(1);
    return s;
  }

  at::Tensor library_gradient(const at::Tensor& x, const at::Tensor& g) const {
    return std::get<1>(at::convolution_backward(g, x, weight_.to(x.scalar_type()), std::nullopt, arguments_.stride, arguments_.padding,
                                                arguments_.dilation, arguments_.transposed, arguments_.output_padding,
                                                arguments_.groups, {false, true, false}));
  }

  at::Tensor loop() const {
    std::vector<at::Tensor> gradients;
    const at::Tensor x = by_sample(at_least_float(input_), rows_, batch_), g = by_sample(at_least_float(backprop_), rows_, batch_);
    for (std::int64_t b = 0; b < batch_; ++b) gradients.push_back(library_gradient(x[b].contiguous(), g[b].contiguous()));
    return at::stack(gradients);
  }

  at::Tensor input_, weight_, backprop_;
  at::Tensor kept_, packed_;  // [B, *weight], or [B, DirectConvolution::size()]
  ConvolutionGeometry geometry_{};
  Arguments arguments_;
  RowMap rows_;
  std::int64_t batch_;
};

std::vector<std::int64_t> concrete(const std::vector<c10::SymInt>& symbolic) {
  std::vector<std::int64_t> values;
  for (const auto& value : symbolic) values.push_back(value.guard_int(__FILE__, __LINE__));
  return values;
}

/// PyTorch lets one value stand for every dimension.
std::vector<std::int64_t> spread(std::vector<std::int64_t> values, std::int64_t spatial) {
  if (values.size() == 1) values.resize(spatial, values[0]);
  return values;
}

}  // namespace

bool convolution_rule(const SiteView& view, Contributions& out) {
  auto* node = dynamic_cast<ConvolutionBackward0*>(&view.node());
  if (!node) return false;
  if (!view.flows()) return true;
  const RowMap map = view.batch == 1 ? RowMap{0, true} : view.maps[0];
  if (map.dim != 0) return false;
  const at::Tensor backprop = view.backprops[0].detach();
  const std::int64_t spatial = backprop.dim() - 2;
  for (std::size_t i = 0; i < view.site.uses.size(); ++i) {
    const Use& use = view.site.uses[i];
    if (use.edge == 2) {
      std::vector<std::int64_t> positions(spatial);
      for (std::int64_t k = 0; k < spatial; ++k) positions[k] = k + 2;
      const at::Tensor per_image = at_least_float(backprop).sum(positions);
      out[i] = std::make_unique<Instantiated>(by_sample(per_image, map, view.batch).sum(1));
      continue;
    }
    if (use.edge != 1) return false;
    Arguments arguments{spread(concrete(node->stride), spatial), spread(concrete(node->padding), spatial),
                        spread(concrete(node->dilation), spatial), spread(concrete(node->output_padding), spatial),
                        node->groups.guard_int(__FILE__, __LINE__), node->transposed};
    out[i] = std::make_unique<ConvolutionContribution>(unpack_once(node->input_).detach(), unpack_once(node->weight_).detach(), backprop,
                                                       std::move(arguments), map, view.batch);
  }
  return true;
}

}  // namespace hushgrad
