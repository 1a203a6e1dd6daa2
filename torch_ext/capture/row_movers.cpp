#include "torch_ext/capture/row_movers.h"

#include <torch/csrc/autograd/generated/Functions.h>
#include <torch/csrc/autograd/saved_variable.h>

#include <functional>
#include <typeindex>

namespace hushgrad {
namespace {

using namespace torch::autograd::generated;
using torch::autograd::SavedVariable;

struct Batch {
  std::int64_t size;
  bool first;
};

/// index: for each of its elements the row it is taken from, of `rows` rows.
bool keeps_blocks(const at::Tensor& index, std::int64_t rows, std::int64_t batch) {
  const std::int64_t taken = index.numel();
  if (taken == 0 || taken % batch != 0 || rows % batch != 0) return false;
  const at::Tensor from = index.reshape(-1).to(at::kLong).cpu();
  const at::Tensor owner = from.where(from.ge(0), from + rows).floor_divide(rows / batch);
  return owner.equal(at::arange(taken, at::kLong).floor_divide(taken / batch));
}

at::Tensor recorded(SavedVariable& saved) {
  // Under activation checkpointing unpacking would recompute.
  return saved.has_hooks() ? at::Tensor() : saved.unpack();
}

bool indexed_rows_stay(std::vector<SavedVariable>& indices, std::int64_t rows, const Batch& batch) {
  if (indices.empty()) return true;
  if (indices[0].has_hooks()) return false;
  const at::Tensor first = indices[0].unpack();
  if (!first.defined()) return batch.first;
  return first.scalar_type() != at::kBool && keeps_blocks(first, rows, batch.size);
}

bool may_hold_the_batch(std::int64_t dim, const Batch& batch) { return dim == 0 || (dim == 1 && !batch.first); }

bool slice_stays(std::int64_t start, std::int64_t end, std::int64_t rows, std::int64_t batch) {
  return rows % batch == 0 && start == 0 && end >= rows;
}

using Test = std::function<bool(Node&, const Batch&)>;

template <typename T>
std::pair<const std::type_index, Test> test(bool (*of)(T&, const Batch&)) {
  return {typeid(T), [of](Node& node, const Batch& batch) { return of(dynamic_cast<T&>(node), batch); }};
}

template <typename T>
std::pair<const std::type_index, Test> along_dim() {
  return test<T>([](T& node, const Batch& batch) { return !may_hold_the_batch(node.dim, batch); });
}

template <typename T>
std::pair<const std::type_index, Test> never() {
  return test<T>([](T&, const Batch&) { return false; });
}

const std::unordered_map<std::type_index, Test>& tests() {
  static const std::unordered_map<std::type_index, Test> all{
      test<IndexBackward0>([](IndexBackward0& node, const Batch& batch) {
        return indexed_rows_stay(node.indices_, node.self_sym_sizes[0].guard_int(__FILE__, __LINE__), batch);
      }),
      test<IndexSelectBackward0>([](IndexSelectBackward0& node, const Batch& batch) {
        if (!may_hold_the_batch(node.dim, batch)) return true;
        const at::Tensor index = recorded(node.index_);
        return node.dim == 0 && index.defined() && keeps_blocks(index, node.self_sym_sizes[0].guard_int(__FILE__, __LINE__), batch.size);
      }),
      test<IndexPutBackward0>([](IndexPutBackward0& node, const Batch& batch) {
        if (node.indices_.empty() || node.indices_[0].has_hooks()) return false;
        return !node.indices_[0].unpack().defined() && batch.first;
      }),
      test<SliceBackward0>([](SliceBackward0& node, const Batch& batch) {
        if (!may_hold_the_batch(node.dim, batch)) return true;
        const std::int64_t rows = node.self_sym_sizes[node.dim].guard_int(__FILE__, __LINE__);
        const std::int64_t start = node.start ? node.start->guard_int(__FILE__, __LINE__) : 0;
        const std::int64_t end = node.end ? node.end->guard_int(__FILE__, __LINE__) : rows;
        return slice_stays(start, end, rows, batch.size);
      }),
      along_dim<SplitWithSizesBackward0>(),
      along_dim<IndexAddBackward0>(),
      along_dim<IndexCopyBackward0>(),
      along_dim<IndexReduceBackward0>(),
      along_dim<GatherBackward0>(),
      along_dim<ScatterBackward0>(),
      along_dim<ScatterAddBackward0>(),
      along_dim<ScatterReduceBackward0>(),
      along_dim<SortBackward0>(),
      along_dim<TopkBackward0>(),
      never<TakeBackward0>(),
      never<MaskedSelectBackward0>(),
      never<MaskedScatterBackward0>(),
      never<PackPaddedSequenceBackward0>(),
      never<EmbeddingBackward0>(),
  };
  return all;
}

bool leads_to_data(const Walk& walk, const std::unordered_map<const Node*, std::size_t>& position, const Node& node) {
  for (const Edge& edge : node.next_edges()) {
    if (edge.is_valid() && !walk.only_parameters[position.at(edge.function.get())]) return true;
  }
  return false;
}

}  // namespace

bool row_stays(Node& node, std::int64_t batch) {
  const auto found = tests().find(typeid(node));
  return found == tests().end() || found->second(node, {batch, true});
}

bool rows_stay(const Walk& walk, std::int64_t batch, bool batch_first) {
  if (batch < 2) return true;
  std::unordered_map<const Node*, std::size_t> position;
  for (const NodePtr& node : walk.nodes) {
    const auto found = tests().find(typeid(*node));
    if (found == tests().end()) continue;
    if (position.empty()) {
      for (std::size_t i = 0; i < walk.nodes.size(); ++i) position.emplace(walk.nodes[i].get(), i);
    }
    if (leads_to_data(walk, position, *node) && !found->second(*node, {batch, batch_first})) return false;
  }
  return true;
}

}  // namespace hushgrad
