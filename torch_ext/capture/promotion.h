// Which nodes may compute on parameters only, so that samples reach them mixed without the model mixing samples.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "torch_ext/capture/sites.h"

namespace hushgrad {

/// A site whose backprop is touched by all samples is either a function of parameters (weight_norm, a LoRA merge), and
/// then the samples meet there legitimately, or a function of data behind an operator that mixes samples. The graph tells
/// them apart only where every operand is on record:
///   - every operand leads to private parameters and the operator takes nothing else: yes;
///   - an operand is not on record (a frozen weight, a scalar, or data): only if `forward_is_checked`, that is if the caller
///     shows by running the model on other samples that no output depends on them (hushgrad.independence does);
///     otherwise only for scalars and for sums in the parameter's own shape;
///   - operators that take indices or data by nature (linear, convolution, embedding, normalisation): never.
bool may_be_promoted(const Site& site, bool forward_is_checked);

/// Whether all that the operator has on record are private parameters. If what it takes beside them is constant (a matrix of
/// positions, a number), it is a function of parameters as well; only other data can tell: see DerivativeRecord.
bool may_be_constant(const Site& site);

/// Derivatives of the parts of a graph that were taken for functions of parameters, in a fixed direction. A part that computes
/// with data has others when the data changes.
class DerivativeRecord {
 public:
  DerivativeRecord(const Walk& walk, const ParameterIndex& parameters);
  /// The name of a parameter whose derivative is another one there; nothing if all are alike. `of_part`: of fewer samples there, so
  /// that parts that are spread over the batch, and have another size, do not compare.
  std::optional<std::string> differs_from(const DerivativeRecord& other, const ParameterIndex& parameters, bool of_part) const;

 private:
  struct Part {
    std::vector<std::int64_t> sizes;
    std::vector<std::pair<std::size_t, at::Tensor>> derivatives;  // (parameter, gradient)
  };
  static Part part_at(const Edge& boundary, const ParameterIndex& parameters);
  static std::optional<std::size_t> first_difference(const Part& x, const Part& y);  // the parameter

  std::vector<Part> parts_;
};

}  // namespace hushgrad
