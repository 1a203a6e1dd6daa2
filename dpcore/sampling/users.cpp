#include "dpcore/sampling/users.h"

#include <algorithm>
#include <numeric>

#include "dpcore/error.h"
#include "dpcore/random/word_stream.h"
#include "dpcore/sampling/uniform_subset.h"

namespace hushgrad {

namespace {

std::vector<std::int64_t> contribution(WordStream<>& words, std::span<const std::int64_t> owned, std::int64_t limit) {
  const auto count = static_cast<std::int64_t>(owned.size());
  if (count <= limit) return {owned.begin(), owned.end()};
  std::vector<std::int64_t> kept = uniform_subset(words, count, limit);
  for (std::int64_t& record : kept) record = owned[static_cast<std::size_t>(record)];
  return kept;
}

}  // namespace

UserRecords::UserRecords(std::span<const std::int64_t> owners, std::int64_t max_records_per_user)
    : max_records_per_user_(max_records_per_user), records_(owners.size()) {
  if (owners.empty()) throw InvalidArgument("[users] Expected the owner of at least one record, received none.");
  if (max_records_per_user < 1) {
    throw InvalidArgument(message("[users] Expected max_records_per_user >= 1, received ", max_records_per_user, "."));
  }
  std::iota(records_.begin(), records_.end(), 0);
  const auto owner = [&](std::int64_t record) { return owners[static_cast<std::size_t>(record)]; };
  std::stable_sort(records_.begin(), records_.end(), [&](std::int64_t a, std::int64_t b) { return owner(a) < owner(b); });
  for (std::size_t i = 0; i < records_.size(); ++i) {
    if (i == 0 || owner(records_[i]) != owner(records_[i - 1])) begins_.push_back(static_cast<std::int64_t>(i));
  }
  begins_.push_back(static_cast<std::int64_t>(records_.size()));
}

std::span<const std::int64_t> UserRecords::records_of(std::int64_t user) const {
  const auto at = static_cast<std::size_t>(user);
  return std::span(records_).subspan(static_cast<std::size_t>(begins_[at]), static_cast<std::size_t>(begins_[at + 1] - begins_[at]));
}

UserSampler::UserSampler(UserRecords users, SamplingRate rate) : users_(std::move(users)), poisson_(users_.users(), rate) {}

UserSampler::Draw UserSampler::draw(Csprng& rng) {
  Draw draw;
  const Batch chosen = poisson_.draw(rng);
  WordStream words(rng);
  for (std::int64_t user : chosen) {
    const std::vector<std::int64_t> records = contribution(words, users_.records_of(user), users_.max_records_per_user());
    draw.records.insert(draw.records.end(), records.begin(), records.end());
    draw.sizes.push_back(static_cast<std::int64_t>(records.size()));
  }
  return draw;
}

Batch UserBatches::draw(Csprng& rng) {
  UserSampler::Draw draw = users_.draw(rng);
  sizes_ = std::move(draw.sizes);
  return std::move(draw.records);
}

}  // namespace hushgrad
