#include "torch_ext/capture/rows.h"

namespace hushgrad {

std::vector<RowMap> candidate_maps(at::IntArrayRef sizes, std::int64_t batch) {
  std::vector<RowMap> maps;
  for (std::size_t dim = 0; dim < sizes.size(); ++dim) {
    for (bool major : {true, false}) {
      const RowMap map{static_cast<std::int64_t>(dim), major};
      if (allows(sizes, map, batch)) maps.push_back(map);
    }
  }
  if (batch == 1) maps.push_back({-1, true});
  return maps;
}

bool allows(at::IntArrayRef sizes, const RowMap& map, std::int64_t batch) {
  if (map.dim < 0) return batch == 1;
  if (map.dim >= static_cast<std::int64_t>(sizes.size())) return false;
  return sizes[map.dim] > 0 && sizes[map.dim] % batch == 0;
}

std::optional<RowMap> resolve(const std::vector<RowMap>& survivors, at::IntArrayRef sizes, std::int64_t batch) {
  std::optional<RowMap> chosen;
  for (const RowMap& map : survivors) {
    if (!allows(sizes, map, batch)) continue;
    if (!chosen) {
      chosen = map;
      continue;
    }
    if (batch == 1) continue;  // every map says the same of a single sample
    const bool same = chosen->dim == map.dim && sizes[map.dim] == batch;
    if (!same) return std::nullopt;
  }
  return chosen;
}

at::Tensor rows_of(const RaggedRows& ragged, std::int64_t b) {
  const std::int64_t first = b * ragged.longest;
  const auto padding = ragged.padding.ge(first).logical_and(ragged.padding.lt(first + ragged.longest)).sum().item<std::int64_t>();
  return ragged.index.narrow(0, first, ragged.longest - padding);
}

at::Tensor by_sample(const at::Tensor& t, const RowMap& map, std::int64_t batch) {
  if (map.dim < 0) return t.unsqueeze(0).unsqueeze(0);
  if (map.ragged) {
    at::Tensor rows = t.index_select(map.dim, map.ragged->index.to(t.device()));
    if (map.ragged->padding.numel() > 0) rows.index_fill_(map.dim, map.ragged->padding.to(t.device()), 0);
    return rows.unflatten(map.dim, {batch, map.ragged->longest}).movedim({map.dim, map.dim + 1}, {0, 1});
  }
  const std::int64_t m = t.size(map.dim) / batch;
  if (map.major) return t.unflatten(map.dim, {batch, m}).movedim({map.dim, map.dim + 1}, {0, 1});
  return t.unflatten(map.dim, {m, batch}).movedim({map.dim + 1, map.dim}, {0, 1});
}

void RowEvidence::observe(const at::Tensor& backprop, const at::Tensor& seeded) {
  const std::int64_t batch = seeded.numel();
  // A sample that is not finite proves nothing against the map: 0 * inf is NaN in its own row.
  const at::Tensor touched = backprop.detach().ne(0).logical_and(backprop.detach().isfinite());
  std::vector<RowMap> left;
  at::Tensor first_active;
  for (const RowMap& map : survivors_) {
    const at::Tensor active = by_sample(touched, map, batch).reshape({batch, -1}).any(1).cpu();
    if (active.logical_and(seeded.logical_not()).any().item<bool>()) continue;
    if (left.empty()) first_active = active;
    left.push_back(map);
  }
  if (!left.empty() && first_active.defined()) {
    const bool same_first = seen_.defined() && left.front() == survivors_.front();
    seen_ = same_first ? seen_.logical_or(first_active) : first_active;
  }
  survivors_ = std::move(left);
}

bool RowEvidence::decided() const {
  return !survivors_.empty() && seen_.defined() && seen_.sum().item<std::int64_t>() >= 2;
}

}  // namespace hushgrad
