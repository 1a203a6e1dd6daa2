// Rows that follow the samples in no regular order, found out row by row.
#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <optional>
#include <vector>

#include "torch_ext/capture/rows.h"

namespace hushgrad {

/// owners: [N] int64, the sample of each row; -1 where no sample's output depends on the row.
RowMap ragged_map(std::int64_t dim, const at::Tensor& owners, std::int64_t batch);

/// owners of a regular map. [sizes[dim]] int64.
at::Tensor owners_of(const RowMap& map, at::IntArrayRef sizes, std::int64_t batch);

/// What probes by the bits of a sample's number show of one tensor, dimension by dimension.
class OwnerEvidence {
 public:
  OwnerEvidence(at::IntArrayRef sizes, std::int64_t batch);
  void observe(const at::Tensor& backprop, int bit, bool value);

  struct Owned {
    std::int64_t dim;
    at::Tensor owners;  // as in ragged_map
  };
  /// The first dimension along which every index is touched by one sample at most, with most indices touched; nothing if there is
  /// none, so that some value belongs to several samples.
  std::optional<Owned> owned() const;

 private:
  std::optional<Owned> owned_along(std::size_t dim) const;

  std::vector<std::int64_t> sizes_;
  std::int64_t batch_;
  int bits_;
  std::vector<std::vector<at::Tensor>> touched_;  // [dim][2 * bit + value] -> [sizes[dim]] bool
};

/// Tells the rows of a structure that is known to keep samples apart, in 1 + ceil(log16 batch) probes: back-propagation is linear,
/// so a row whose sample's seed is multiplied by 2^e comes out multiplied by 2^e, exactly.
class OwnerCodes {
 public:
  explicit OwnerCodes(std::int64_t batch);
  int probes() const { return 1 + digits_; }
  /// What each sample's seed is multiplied by in a probe. [batch] float32.
  at::Tensor factors(int probe) const;
  /// norms: [probe] -> [N] float64, each row's l2 norm. Nothing if a row is not one sample's multiple, or not finite.
  std::optional<at::Tensor> owners(const std::vector<at::Tensor>& norms) const;

 private:
  std::int64_t batch_;
  int digits_ = 0;
};

/// l2 norm of every row along dim. [sizes[dim]] float64 on the CPU.
at::Tensor row_norms(const at::Tensor& t, std::int64_t dim);

}  // namespace hushgrad
