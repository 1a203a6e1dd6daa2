// The noisy sum in every process of a run: what one of them made, and nothing else.
#pragma once

#include <ATen/ATen.h>

#include <vector>

#include "dpcore/clipping/clipped_sum.h"
#include "torch_ext/distributed/ranks.h"

namespace hushgrad {

/// Only a SharedSum becomes a gradient, and it comes from a NoisySum: this process's own, or the first one's.
class SharedSum {
 public:
  /// noisy views the memory of sums (float32, one a parameter). With ranks, every process receives it.
  /// @throws PrivacyViolation if it views other memory.
  static SharedSum give(const NoisySum& noisy, std::vector<at::Tensor> sums, Ranks* ranks);
  /// What the first process gives. sums: tensors of the parameters' shapes; overwritten.
  static SharedSum take(std::vector<at::Tensor> sums, Ranks& ranks);

  /// Sets the parameters' gradients.
  void become_gradients(const std::vector<at::Tensor>& parameters) &&;

 private:
  explicit SharedSum(std::vector<at::Tensor> sums) : sums_(std::move(sums)) {}
  std::vector<at::Tensor> sums_;
};

}  // namespace hushgrad
