// The fused LSTM layer of the CPU. Its node gives whole gradients only, so the backward pass through time is ours: the gates are
// read from oneDNN's workspace, or recomputed with two products over all steps (the states are on record), then one step after the
// other. What comes out serves the input's gradient as well, and the node itself does not run.
//
//   i, f, g, o = split(x_t W_ih^T + h_{t-1} W_hh^T + b);  c_t = f c_{t-1} + i g;  h_t = o tanh(c_t)
#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/generated/Functions.h>

#include "torch_ext/rules/linear.h"
#include "torch_ext/rules/rule.h"
#include "torch_ext/rules/vector_units.h"

namespace hushgrad {
namespace {

using torch::autograd::generated::MkldnnRnnLayerBackward0;

constexpr std::int64_t kLstm = 2;  // rnn_kind of oneDNN

/// What the forward pass of one layer and direction knew. H hidden units.
struct Layer {
  at::Tensor input;            // [T, B, d]
  at::Tensor w_ih, w_hh;       // [4H, d], [4H, H]
  at::Tensor bias;             // [4H], the two together
  at::Tensor h_before;         // [T, B, H]: the state that step t started from
  at::Tensor c_start;          // [B, H]
  bool reverse;
  std::int64_t steps() const { return input.size(0); }
  std::int64_t step(std::int64_t n) const { return reverse ? steps() - 1 - n : n; }
};

struct Gates {
  at::Tensor activated;  // [T, B, 4H]: i, f, g, o after their functions; rows may be padded
  bool by_step;          // activated is in the order of the recurrence, not of time
  at::Tensor c, tanh_c;  // [T, B, H], in order of time
  std::int64_t row_stride() const { return activated.stride(1); }
  std::int64_t place(const Layer& layer, std::int64_t n) const { return by_step ? n : layer.step(n); }
};

// One row of cells: these loops are all there is between the products.
template <typename T>
[[gnu::always_inline]] inline void cell_row(const T* i, const T* before, T* now, std::int64_t hidden) {
  const T *f = i + hidden, *g = f + hidden;
  for (std::int64_t k = 0; k < hidden; ++k) now[k] = f[k] * before[k] + i[k] * g[k];
}

/// i: the row's activated gates; di: where their gradients go. dh: of h_t; extra: of the output at t, or null; dc: of c_t, becomes
/// that of c_{t-1}.
template <typename T>
[[gnu::always_inline]] inline void back_row(const T* __restrict i, const T* __restrict tanh_c, const T* __restrict before, const T* __restrict dh,
                                            const T* __restrict extra, T* __restrict dc, T* __restrict di, std::int64_t hidden) {
  const T *f = i + hidden, *g = f + hidden, *o = g + hidden;
  T *df = di + hidden, *dg = df + hidden, *d_o = dg + hidden;
  for (std::int64_t k = 0; k < hidden; ++k) {
    const T of_h = dh[k] + (extra ? extra[k] : T(0));
    const T of_c = dc[k] + of_h * o[k] * (T(1) - tanh_c[k] * tanh_c[k]);
    d_o[k] = of_h * tanh_c[k] * o[k] * (T(1) - o[k]);
    di[k] = of_c * g[k] * i[k] * (T(1) - i[k]);
    df[k] = of_c * before[k] * f[k] * (T(1) - f[k]);
    dg[k] = of_c * i[k] * (T(1) - g[k] * g[k]);
    dc[k] = of_c * f[k];
  }
}

HUSHGRAD_CLONES void step_cells(const float* i, const float* before, float* now, std::int64_t hidden) { cell_row(i, before, now, hidden); }
void step_cells(const double* i, const double* before, double* now, std::int64_t hidden) { cell_row(i, before, now, hidden); }

HUSHGRAD_CLONES void step_cells_back(const float* i, const float* tanh_c, const float* before, const float* dh, const float* extra, float* dc, float* di,
                                     std::int64_t hidden) {
  if (extra) return back_row(i, tanh_c, before, dh, extra, dc, di, hidden);
  back_row<float>(i, tanh_c, before, dh, nullptr, dc, di, hidden);
}
void step_cells_back(const double* i, const double* tanh_c, const double* before, const double* dh, const double* extra, double* dc, double* di,
                     std::int64_t hidden) {
  back_row(i, tanh_c, before, dh, extra, dc, di, hidden);
}

template <typename T>
void run_cells(const Layer& layer, const Gates& gates) {
  const std::int64_t batch = layer.input.size(1), hidden = layer.w_hh.size(1);
  const T* activated = gates.activated.const_data_ptr<T>();
  const T* start = layer.c_start.const_data_ptr<T>();
  T* c = gates.c.mutable_data_ptr<T>();
  at::parallel_for(0, batch, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t b = begin; b < end; ++b) {
      const T* before = start + b * hidden;
      for (std::int64_t n = 0; n < layer.steps(); ++n) {
        const std::int64_t row = layer.step(n) * batch + b;
        step_cells(activated + (gates.place(layer, n) * batch + b) * gates.row_stride(), before, c + row * hidden, hidden);
        before = c + row * hidden;
      }
    }
  });
}

/// input: [N, d], h_before: [N, H] -> [N, 4H]
at::Tensor activate(const Layer& layer, const at::Tensor& input, const at::Tensor& h_before) {
  const std::int64_t hidden = layer.w_hh.size(1);
  at::Tensor activated = at::addmm(layer.bias, input, layer.w_ih.t());
  activated.addmm_(h_before, layer.w_hh.t());
  activated.narrow(1, 0, 2 * hidden).sigmoid_();
  activated.narrow(1, 2 * hidden, hidden).tanh_();
  activated.narrow(1, 3 * hidden, hidden).sigmoid_();
  return activated;
}

/// The gates in oneDNN's workspace, where they lie first, in the order of the recurrence and in rows padded to cache lines. That is
/// nowhere promised, so the first and the last step are compared with the formula; undefined if they are not what they should be.
at::Tensor recorded_gates(MkldnnRnnLayerBackward0& node, const NodePtr& self, const Layer& layer) {
  const std::int64_t steps = layer.steps(), batch = layer.input.size(1), width = 4 * layer.w_hh.size(1);
  if (layer.input.scalar_type() != at::kFloat) return {};
  const at::Tensor workspace = unpack_once(node.result3_, self);
  constexpr std::int64_t kLine = 16, kAlias = 256;
  std::int64_t stride = (width + kLine - 1) / kLine * kLine;
  if (stride % kAlias == 0) stride += kLine;
  const std::int64_t bytes = steps * batch * stride * static_cast<std::int64_t>(sizeof(float));
  if (!workspace.defined() || workspace.scalar_type() != at::kByte || !workspace.is_contiguous() || workspace.numel() < bytes) return {};
  const at::Tensor gates = workspace.detach().view(-1).narrow(0, 0, bytes).view(at::kFloat).as_strided({steps, batch, width}, {batch * stride, stride, 1});
  for (std::int64_t n : {std::int64_t{0}, steps - 1}) {
    const at::Tensor expected = activate(layer, layer.input[layer.step(n)], layer.h_before[layer.step(n)]);
    if (!at::allclose(gates[n], expected, 1e-4, 1e-4, /*equal_nan=*/true)) return {};
  }
  return gates;
}

Gates gates_of(MkldnnRnnLayerBackward0& node, const NodePtr& self, const Layer& layer) {
  const std::int64_t steps = layer.steps(), batch = layer.input.size(1), hidden = layer.w_hh.size(1);
  Gates gates;
  gates.activated = recorded_gates(node, self, layer);
  gates.by_step = gates.activated.defined();
  if (!gates.by_step) gates.activated = activate(layer, layer.input.flatten(0, 1), layer.h_before.flatten(0, 1)).view({steps, batch, 4 * hidden});
  gates.c = at::empty({steps, batch, hidden}, layer.input.options());
  AT_DISPATCH_FLOATING_TYPES(layer.input.scalar_type(), "lstm_cells", [&] { run_cells<scalar_t>(layer, gates); });
  gates.tanh_c = gates.c.tanh();
  return gates;
}

/// One step back: dh holds the gradient of h_t, dc that of c_t; leaves that of c_{t-1} in dc and of the gates in d_gates.
template <typename T>
void step_back(const Layer& layer, const Gates& gates, std::int64_t n, const at::Tensor& d_output, const at::Tensor& dh, const at::Tensor& dc,
               const at::Tensor& d_gates) {
  const std::int64_t batch = layer.input.size(1), hidden = layer.w_hh.size(1), t = layer.step(n);
  const T* c_before = n == 0 ? layer.c_start.const_data_ptr<T>() : gates.c.const_data_ptr<T>() + layer.step(n - 1) * batch * hidden;
  const T* from_output = d_output.defined() ? d_output.const_data_ptr<T>() + t * batch * hidden : nullptr;
  const std::int64_t stride = gates.row_stride();
  const T *activated = gates.activated.const_data_ptr<T>() + gates.place(layer, n) * batch * stride, *tanh_c = gates.tanh_c.const_data_ptr<T>() + t * batch * hidden;
  const T* h_gradient = dh.const_data_ptr<T>();
  T *c_gradient = dc.mutable_data_ptr<T>(), *out = d_gates.mutable_data_ptr<T>() + t * batch * 4 * hidden;
  at::parallel_for(0, batch, 8, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t b = begin; b < end; ++b) {
      step_cells_back(activated + b * stride, tanh_c + b * hidden, c_before + b * hidden, h_gradient + b * hidden,
                      from_output ? from_output + b * hidden : nullptr, c_gradient + b * hidden, out + b * 4 * hidden, hidden);
    }
  });
}

struct Back {
  at::Tensor d_gates;  // [T, B, 4H]
  at::Tensor dh, dc;   // [B, H]: of the states that the sequence started from
};

at::Tensor copy_or_zeros(const at::Tensor& gradient, const at::Tensor& like) {
  return gradient.defined() ? gradient.detach().reshape(like.sizes()).clone(at::MemoryFormat::Contiguous) : at::zeros_like(like);
}

Back back_through_time(const Layer& layer, const Gates& gates, const at::Tensor& d_output, const at::Tensor& d_hidden, const at::Tensor& d_cell) {
  Back back{at::empty(gates.activated.sizes(), layer.input.options()), copy_or_zeros(d_hidden, layer.c_start), copy_or_zeros(d_cell, layer.c_start)};
  const at::Tensor output = d_output.defined() ? d_output.detach().contiguous() : d_output;
  for (std::int64_t n = layer.steps() - 1; n >= 0; --n) {
    AT_DISPATCH_FLOATING_TYPES(layer.input.scalar_type(), "lstm_step_back", [&] { step_back<scalar_t>(layer, gates, n, output, back.dh, back.dc, back.d_gates); });
    at::mm_out(back.dh, back.d_gates[layer.step(n)], layer.w_hh);
  }
  return back;
}

Layer layer_of(MkldnnRnnLayerBackward0& node, const NodePtr& self) {
  Layer layer;
  layer.reverse = node.reverse;
  layer.input = unpack_once(node.input_).detach().contiguous();
  layer.w_ih = unpack_once(node.weight0_).detach();
  layer.w_hh = unpack_once(node.weight1_).detach().contiguous();
  // Without biases the node holds zeros of the weight's shape.
  layer.bias = node.has_biases ? unpack_once(node.weight2_).detach() + unpack_once(node.weight3_).detach() : layer.w_ih.new_zeros({layer.w_ih.size(0)});
  layer.c_start = unpack_once(node.cx__).detach().contiguous();
  const at::Tensor start = unpack_once(node.hx__).detach().unsqueeze(0), output = unpack_once(node.result0_, self).detach();
  const std::int64_t steps = layer.input.size(0);
  layer.h_before = layer.reverse ? at::cat({output.narrow(0, 1, steps - 1), start}) : at::cat({start, output.narrow(0, 0, steps - 1)});
  return layer;
}

bool is_ours(const SiteView& view, MkldnnRnnLayerBackward0& node) {
  const at::Tensor input = node.input_.unpack(), w_hh = node.weight1_.unpack();
  const bool shapes = node.mode == kLstm && node.batch_sizes.empty() && input.dim() == 3 && input.size(1) == view.batch && w_hh.size(0) == 4 * w_hh.size(1) &&
                      node.hx__.unpack().dim() == 2;
  if (!shapes || !input.is_cpu() || (input.scalar_type() != at::kFloat && input.scalar_type() != at::kDouble)) return false;
  if (view.batch == 1) return true;
  return (!view.flows(0) || view.maps[0].dim == 1) && (!view.flows(1) || view.maps[1].dim == 0) && (!view.flows(2) || view.maps[2].dim == 0);
}

}  // namespace

bool lstm_rule(const SiteView& view, Contributions& out) {
  auto* node = dynamic_cast<MkldnnRnnLayerBackward0*>(&view.node());
  if (!node || !is_ours(view, *node)) return false;
  if (!view.flows(0) && !view.flows(1) && !view.flows(2)) return true;
  const Layer layer = layer_of(*node, view.site.node);
  const Back back = back_through_time(layer, gates_of(*node, view.site.node, layer), view.backprops[0], view.backprops[1], view.backprops[2]);
  const at::Tensor rows = back.d_gates.flatten(0, 1);  // [T*B, 4H]
  const RowMap order{0, false};
  at::Tensor bias;  // [B, 4H]
  for (std::size_t i = 0; i < view.site.uses.size(); ++i) {
    const std::uint32_t edge = view.site.uses[i].edge;
    if (edge == 1) out[i] = linear_contribution(layer.input.flatten(0, 1), rows, order, view.batch, false);
    if (edge == 2) out[i] = linear_contribution(layer.h_before.flatten(0, 1), rows, order, view.batch, false);
    if (edge == 3 || edge == 4) {
      if (!bias.defined()) bias = back.d_gates.sum(0);
      out[i] = std::make_unique<Instantiated>(bias);
    }
    // A state to start from that is a parameter itself: [B, H] leads to it through expand.
    if (edge == 0 || edge == 5 || edge == 6) return false;
  }
  const auto wanted = [&](std::size_t edge) { return edge < node->next_edges().size() && node->next_edge(edge).is_valid(); };
  view.instead.assign(node->num_outputs(), at::Tensor());
  if (wanted(0)) view.instead[0] = rows.mm(layer.w_ih).view(layer.input.sizes());
  if (wanted(5)) view.instead[5] = back.dh;
  if (wanted(6)) view.instead[6] = back.dc;
  return true;
}

}  // namespace hushgrad
