// Proves by back-propagation which rows belong to which sample.
#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <vector>

#include "torch_ext/capture/rows.h"
#include "torch_ext/capture/sites.h"

namespace hushgrad {

/// One output of the model and where the batch lies in it.
struct ProbedOutput {
  at::Tensor tensor;
  RowMap map;
};

/// The outputs that carry the batch; outputs without it (a loss computed inside the model) cannot be seeded by sample.
std::vector<ProbedOutput> batched_outputs(const std::vector<at::Tensor>& outputs, std::int64_t batch, bool batch_first);

/// What the probes are to watch: (node, input) pairs.
using ProbeTargets = std::vector<Edge>;

/// [batch] bool: the samples whose number has (value) or has not (not value) the bit. Over all bits any two samples are told apart.
at::Tensor samples_with_bit(std::int64_t batch, int bit, bool value);

/// True while a probe runs, in any thread: hooks that collect gradients look away.
bool is_probing();

/// Makes is_probing() true for its lifetime.
class ProbingScope {
 public:
  ProbingScope();
  ~ProbingScope();
  ProbingScope(const ProbingScope&) = delete;
  ProbingScope& operator=(const ProbingScope&) = delete;
};

/// 2*ceil(log2 B) backward passes: for every bit of the sample's number once the samples that have it and once those that
/// have not. Two samples differ in some bit, so each is seeded once while the other is not, in both directions.
/// Calls see(target, backprop, seeded) for every target reached by a probe, while the engine is there, so that no backprop
/// outlives its node and a probe needs no more memory than an ordinary backward pass. No leaf receives a gradient.
void probe(const std::vector<ProbedOutput>& outputs, std::int64_t batch, const Walk& walk, const ProbeTargets& targets,
           const std::function<void(std::size_t, const at::Tensor&, const at::Tensor&)>& see);

/// One backward pass for each of `factors`, [batch] float32: what every sample's seed is multiplied by. The seeds are the same in all.
/// Calls see(target, backprop, number of the probe).
void probe_scaled(const std::vector<ProbedOutput>& outputs, std::int64_t batch, const Walk& walk, const ProbeTargets& targets,
                  const std::vector<at::Tensor>& factors, const std::function<void(std::size_t, const at::Tensor&, std::size_t)>& see);

/// The operator behind which separate samples become mixed: its name, or "an operator" if the probes do not show it.
std::string name_the_mixer(const std::vector<ProbedOutput>& outputs, std::int64_t batch, const Walk& walk);

}  // namespace hushgrad
