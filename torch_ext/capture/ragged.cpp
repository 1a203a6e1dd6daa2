#include "torch_ext/capture/ragged.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace hushgrad {
namespace {

constexpr int kDigit = 4;  // bits of a sample's number in one probe
constexpr double kTolerance = 1e-3;  // of the exponent of two: rows of two samples are further off

int bits_of(std::int64_t batch) { return std::bit_width(static_cast<std::uint64_t>(batch - 1)); }

}  // namespace

RowMap ragged_map(std::int64_t dim, const at::Tensor& owners, std::int64_t batch) {
  const at::Tensor flat = owners.contiguous();
  const std::int64_t* owner = flat.const_data_ptr<std::int64_t>();
  std::vector<std::vector<std::int64_t>> rows(batch);
  std::vector<std::int64_t> index, padding, unowned;
  std::size_t longest = 1;
  for (std::int64_t i = 0; i < flat.numel(); ++i) {
    if (owner[i] < 0) {
      unowned.push_back(i);
      continue;
    }
    rows[owner[i]].push_back(i);
    longest = std::max(longest, rows[owner[i]].size());
  }
  for (const auto& of_sample : rows) {
    for (std::size_t k = 0; k < longest; ++k) {
      if (k >= of_sample.size()) padding.push_back(static_cast<std::int64_t>(index.size()));
      index.push_back(k < of_sample.size() ? of_sample[k] : 0);
    }
  }
  auto ragged = std::make_shared<RaggedRows>();
  ragged->index = at::tensor(index, at::kLong);
  ragged->padding = at::tensor(padding, at::kLong);
  ragged->unowned = at::tensor(unowned, at::kLong);
  ragged->longest = static_cast<std::int64_t>(longest);
  return {dim, true, std::move(ragged)};
}

at::Tensor owners_of(const RowMap& map, at::IntArrayRef sizes, std::int64_t batch) {
  const at::Tensor row = at::arange(sizes[map.dim], at::kLong);
  return map.major ? row.floor_divide(sizes[map.dim] / batch) : row.remainder(batch);
}

OwnerEvidence::OwnerEvidence(at::IntArrayRef sizes, std::int64_t batch)
    : sizes_(sizes.begin(), sizes.end()), batch_(batch), bits_(bits_of(batch)), touched_(sizes_.size()) {
  for (std::size_t dim = 0; dim < sizes_.size(); ++dim) {
    for (int i = 0; i < 2 * bits_; ++i) touched_[dim].push_back(at::zeros({sizes_[dim]}, at::kBool));
  }
}

void OwnerEvidence::observe(const at::Tensor& backprop, int bit, bool value) {
  const at::Tensor touched = backprop.detach().ne(0).logical_and(backprop.detach().isfinite());
  for (std::size_t dim = 0; dim < sizes_.size(); ++dim) {
    touched_[dim][2 * bit + value].logical_or_(touched.movedim(static_cast<std::int64_t>(dim), 0).reshape({sizes_[dim], -1}).any(1).cpu());
  }
}

std::optional<OwnerEvidence::Owned> OwnerEvidence::owned_along(std::size_t dim) const {
  at::Tensor owner = at::zeros({sizes_[dim]}, at::kLong), alive = at::zeros({sizes_[dim]}, at::kBool), complete = at::ones({sizes_[dim]}, at::kBool);
  for (int bit = 0; bit < bits_; ++bit) {
    const at::Tensor &without = touched_[dim][2 * bit], &with = touched_[dim][2 * bit + 1];
    if (with.logical_and(without).any().item<bool>()) return std::nullopt;
    owner.add_(with.to(at::kLong), std::int64_t{1} << bit);
    alive.logical_or_(with).logical_or_(without);
    complete.logical_and_(with.logical_or(without));
  }
  if (alive.ne(complete).any().item<bool>() || owner.ge(batch_).logical_and(alive).any().item<bool>()) return std::nullopt;
  return Owned{static_cast<std::int64_t>(dim), owner.where(alive, at::tensor(-1, at::kLong))};
}

std::optional<OwnerEvidence::Owned> OwnerEvidence::owned() const {
  std::optional<Owned> best;
  std::int64_t most = -1;
  for (std::size_t dim = 0; dim < sizes_.size(); ++dim) {
    auto owned = owned_along(dim);
    if (!owned) continue;
    const std::int64_t alive = owned->owners.ge(0).sum().item<std::int64_t>();
    if (alive > most) {
      most = alive;
      best = std::move(owned);
    }
  }
  return best;
}

OwnerCodes::OwnerCodes(std::int64_t batch) : batch_(batch) { digits_ = (bits_of(batch) + kDigit - 1) / kDigit; }

at::Tensor OwnerCodes::factors(int probe) const {
  at::Tensor result = at::ones({batch_}, at::kFloat);
  if (probe == 0) return result;
  for (std::int64_t b = 0; b < batch_; ++b) {
    const auto digit = static_cast<int>((b >> (kDigit * (probe - 1))) & ((1 << kDigit) - 1));
    result.data_ptr<float>()[b] = std::ldexp(1.0F, digit - (1 << (kDigit - 1)));
  }
  return result;
}

std::optional<at::Tensor> OwnerCodes::owners(const std::vector<at::Tensor>& norms) const {
  const at::Tensor& base = norms[0];
  const at::Tensor alive = base.gt(0);
  if (!base.isfinite().all().item<bool>()) return std::nullopt;
  at::Tensor owner = at::zeros(base.sizes(), at::kLong);
  for (int probe = 1; probe < probes(); ++probe) {
    const at::Tensor exponent = (norms[probe] / base).log2().where(alive, 0.0), rounded = exponent.round();
    const at::Tensor digit = rounded.add(1 << (kDigit - 1));
    const bool off = !exponent.isfinite().all().item<bool>() || (exponent - rounded).abs().gt(kTolerance).any().item<bool>() ||
                     digit.lt(0).any().item<bool>() || digit.ge(1 << kDigit).any().item<bool>();
    if (off) return std::nullopt;
    owner.add_(digit.to(at::kLong), std::int64_t{1} << (kDigit * (probe - 1)));
  }
  if (owner.ge(batch_).logical_and(alive).any().item<bool>()) return std::nullopt;
  return owner.where(alive, at::tensor(-1, at::kLong));
}

at::Tensor row_norms(const at::Tensor& t, std::int64_t dim) {
  const at::Tensor rows = t.detach().movedim(dim, 0).reshape({t.size(dim), -1});
  return at::linalg_vector_norm(rows, 2, at::IntArrayRef{1}, false, at::kDouble).cpu();
}

}  // namespace hushgrad
