// The processes that train one model together, and the few things they tell each other.
#pragma once

#include <ATen/ATen.h>
#include <torch/csrc/distributed/c10d/Backend.hpp>

#include <memory>
#include <string>
#include <vector>

namespace hushgrad {

/// Process 0 of the group is the first: it charges the ledger and adds the noise, and the others take what it made.
///
/// Collective: every process calls the same functions in the same order. What travels is not encrypted and includes sums
/// without noise, so the network between the processes must be as trusted as their memory.
/// Errors: InvalidState if a process left or does not answer within the group's time-out.
class Ranks {
 public:
  /// A backend for tensors on the CPU (gloo). Nobody else may use it: its messages would mix with ours.
  explicit Ranks(c10::intrusive_ptr<c10d::Backend> backend);
  /// Of the process group that torch.distributed knows under this name. Errors: InvalidArgument if it knows none.
  static std::shared_ptr<Ranks> named(const std::string& group_name);
  Ranks(const Ranks&) = delete;
  Ranks& operator=(const Ranks&) = delete;

  int rank() const { return backend_->getRank(); }
  int size() const { return backend_->getSize(); }
  bool first() const { return rank() == 0; }

  /// What each process says, by rank. Everybody gives equally many numbers.
  std::vector<std::vector<double>> gather(const std::vector<double>& own);
  /// The first process's text; the others' is not looked at.
  std::string say(const std::string& text);
  /// tensors: float32 on the CPU, alike in number and shapes everywhere, of any strides. On the first process each becomes the
  /// sum over all; elsewhere it keeps no meaning.
  void sum_to_first(std::vector<at::Tensor>& tensors);
  /// Overwrites each with the first process's. Any device and dtype.
  void copy_from_first(std::vector<at::Tensor>& tensors);

 private:
  c10::intrusive_ptr<c10d::Backend> backend_;
};

}  // namespace hushgrad
