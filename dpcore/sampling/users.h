// Batches of users, where one person owns many records.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "dpcore/sampling/poisson.h"

namespace hushgrad {

/// Which records each user owns, and how many of them may count.
///
/// owners: the user of record i, any numbers; population is the number of different ones. max_records_per_user >= 1, else
/// InvalidArgument. Users are numbered in ascending order of their number. Immutable.
class UserRecords {
 public:
  UserRecords(std::span<const std::int64_t> owners, std::int64_t max_records_per_user);

  std::int64_t users() const noexcept { return static_cast<std::int64_t>(begins_.size()) - 1; }
  std::int64_t records() const noexcept { return static_cast<std::int64_t>(records_.size()); }
  std::int64_t max_records_per_user() const noexcept { return max_records_per_user_; }

  /// Ascending. user in [0, users()).
  std::span<const std::int64_t> records_of(std::int64_t user) const;

 private:
  std::int64_t max_records_per_user_;
  std::vector<std::int64_t> records_;  // by user
  std::vector<std::int64_t> begins_;   // [users + 1], into records_
};

/// Poisson over users: each user is in the batch independently with probability `rate`, with all records, or with a fresh
/// uniform choice of max_records_per_user where there are more. Adding or removing a user, with all records, changes the records of that user only.
///
/// Guarantee towards a user, not only a record, if what is clipped to max_grad_norm is the user's whole contribution: the
/// gradient summed over the user's records in the batch. Charged as Poisson sampling of users.
class UserSampler {
 public:
  UserSampler(UserRecords users, SamplingRate rate);

  struct Draw {
    Batch records;                    // users one after the other
    std::vector<std::int64_t> sizes;  // records of each user in the batch, >= 1; private data
  };
  Draw draw(Csprng& rng);
  const UserRecords& users() const noexcept { return users_; }
  const SamplingRate& rate() const noexcept { return poisson_.rate(); }
  /// In users.
  double expected_batch_size() const { return poisson_.expected_batch_size(); }
  std::int64_t steps_per_epoch() const { return poisson_.steps_per_epoch(); }

 private:
  UserRecords users_;
  PoissonSampler poisson_;
};

/// The same batches where a Sampler is expected: population and batch sizes count users, draw() returns their records.
class UserBatches final : public Sampler {
 public:
  explicit UserBatches(UserSampler users) : users_(std::move(users)) {}

  /// Users one after the other, not ascending.
  Batch draw(Csprng& rng) override;
  /// Records of each user in the batch that draw() returned last. Private data.
  const std::vector<std::int64_t>& sizes() const noexcept { return sizes_; }
  std::int64_t population() const override { return users_.users().users(); }
  double expected_batch_size() const override { return users_.expected_batch_size(); }
  std::int64_t steps_per_epoch() const override { return users_.steps_per_epoch(); }

 private:
  UserSampler users_;
  std::vector<std::int64_t> sizes_;
};

}  // namespace hushgrad
