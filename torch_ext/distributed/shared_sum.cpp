#include "torch_ext/distributed/shared_sum.h"

#include "dpcore/error.h"

namespace hushgrad {

SharedSum SharedSum::give(const NoisySum& noisy, std::vector<at::Tensor> sums, Ranks* ranks) {
  for (std::size_t p = 0; p < sums.size(); ++p) {
    if (noisy.parts()[p].data() != sums[p].data_ptr<float>()) {
      throw PrivacyViolation("[step] Expected the noisy sum of these parameters, received another one.");
    }
  }
  if (ranks) ranks->copy_from_first(sums);
  return SharedSum(std::move(sums));
}

SharedSum SharedSum::take(std::vector<at::Tensor> sums, Ranks& ranks) {
  if (ranks.first()) throw PrivacyViolation("[step] Expected a process that takes its sum from the first, received the first itself.");
  ranks.copy_from_first(sums);
  return SharedSum(std::move(sums));
}

void SharedSum::become_gradients(const std::vector<at::Tensor>& parameters) && {
  for (std::size_t p = 0; p < parameters.size(); ++p) {
    at::Tensor parameter = parameters[p];
    parameter.mutable_grad() = sums_[p].to(parameter.options().requires_grad(false));
  }
}

}  // namespace hushgrad
