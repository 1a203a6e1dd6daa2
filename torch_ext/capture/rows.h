// Which rows of a tensor belong to which sample, and how that is proven.
#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <optional>
#include <vector>

namespace hushgrad {

/// Rows that follow no pattern: packed sequences, tokens routed to experts, joined graphs. See ragged.h.
struct RaggedRows {
  at::Tensor index;           // [batch * longest] int64: each sample's rows, padded with row 0
  at::Tensor padding;         // [k] int64: the places of `index` that are padding
  at::Tensor unowned;         // [n] int64: rows that no sample's output depends on
  std::int64_t longest = 0;   // rows of the sample that has most
};

/// Along dimension `dim`, of size batch * m, sample b owns the block [b*m, (b+1)*m) (major) or every batch-th row
/// starting at b (minor); or the rows that `ragged` says. dim -1: the whole tensor is the only sample's.
struct RowMap {
  std::int64_t dim;
  bool major;
  std::shared_ptr<const RaggedRows> ragged{};
  friend bool operator==(const RowMap&, const RowMap&) = default;
};

/// Every map that the shape allows.
std::vector<RowMap> candidate_maps(at::IntArrayRef sizes, std::int64_t batch);

/// The rows of sample b, without padding.
at::Tensor rows_of(const RaggedRows& ragged, std::int64_t b);

bool allows(at::IntArrayRef sizes, const RowMap& map, std::int64_t batch);

/// The one map that the survivors agree on for this shape; nothing if none fits or two disagree.
std::optional<RowMap> resolve(const std::vector<RowMap>& survivors, at::IntArrayRef sizes, std::int64_t batch);

/// t: [..., batch*m, ...] -> [batch, m, ...other dimensions in order]. A view where strides allow; of ragged rows a copy, m the
/// longest sample's rows and zeros behind the others'.
at::Tensor by_sample(const at::Tensor& t, const RowMap& map, std::int64_t batch);

/// What the probes have shown of one tensor: which maps still hold and for how many samples there is evidence.
///
/// A probe seeds the backward pass at some samples and leaves the others exactly zero. Under the right map every row of
/// an unseeded sample stays exactly zero; a row that does not is touched by two samples. A row that is zero in every
/// probe decides nothing.
class RowEvidence {
 public:
  explicit RowEvidence(std::vector<RowMap> candidates) : survivors_(std::move(candidates)) {}

  /// backprop: the gradient seen in this probe; seeded: [batch] bool.
  void observe(const at::Tensor& backprop, const at::Tensor& seeded);

  const std::vector<RowMap>& survivors() const { return survivors_; }
  bool refuted() const { return survivors_.empty(); }
  /// Two samples with a non-zero row that obeyed the map: from there on the structure is known.
  bool decided() const;

 private:
  std::vector<RowMap> survivors_;
  at::Tensor seen_;  // [batch] bool: samples with a non-zero row, under the first survivor
};

}  // namespace hushgrad
