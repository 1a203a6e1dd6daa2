#include "accounting/batch_law.h"

#include <gtest/gtest.h>

#include <vector>

#include "accounting/accountants/accountant.h"
#include "dpcore/error.h"

namespace hushgrad {
namespace {

constexpr Sampling kAll[] = {Sampling::poisson, Sampling::shuffled, Sampling::sequential};

TEST(BatchLaw, SamplerAndEventAreOfOneLaw) {
  for (Sampling sampling : kAll) {
    const BatchLaw law{sampling, 103, 10};
    const auto sampler = law.make_sampler();
    EXPECT_EQ(sampler->population(), 103);
    EXPECT_EQ(sampler->steps_per_epoch(), law.steps_per_epoch());
    EXPECT_DOUBLE_EQ(sampler->expected_batch_size(), 10);
    EXPECT_EQ(dynamic_cast<EpochSampler*>(sampler.get()) != nullptr, law.charged_once_an_epoch());
    EXPECT_EQ(law.event(0.0), Event::non_private());
    EXPECT_EQ(sampling_from(name_of(sampling)), sampling);
  }
}

TEST(BatchLaw, PoissonIsChargedWithItsOwnRateRoundedUp) {
  const BatchLaw law{Sampling::poisson, 3, 1};
  const Event event = law.event(1.5);
  EXPECT_EQ(event, Event::poisson_sampled(SamplingRate(1, 3).charged(), Event::gaussian(1.5)));
  EXPECT_GE(event.sampling_probability() * 3, 1.0);
  EXPECT_EQ(law.adjacency(), Adjacency::add_or_remove_one);
}

// An epoch is one Gaussian on a sum that a replaced record moves by 2 C, however many steps it has.
TEST(BatchLaw, AnEpochThatHoldsEveryRecordOnceCostsOneStepOnAllTheData) {
  for (Sampling sampling : {Sampling::shuffled, Sampling::sequential}) {
    for (std::int64_t batch_size : {1, 10, 1000}) {
      const BatchLaw law{sampling, 1000, batch_size};
      EXPECT_TRUE(law.charged_once_an_epoch());
      EXPECT_EQ(law.event(3.0), Event::gaussian(1.5));
      EXPECT_EQ(law.adjacency(), Adjacency::replace_one);
    }
  }
}

TEST(BatchLaw, RefusesWhatIsNoLaw) {
  for (Sampling sampling : kAll) {
    for (auto [n, b] : {std::pair<std::int64_t, std::int64_t>{0, 0}, {10, 0}, {10, 11}, {-1, -1}, {(std::int64_t{1} << 62) + 1, 1}}) {
      EXPECT_THROW((BatchLaw{sampling, n, b}.check()), InvalidArgument) << n << " " << b;
      EXPECT_THROW((BatchLaw{sampling, n, b}.make_sampler()), InvalidArgument);
    }
  }
  EXPECT_THROW(sampling_from("weighted"), InvalidArgument);
}

}  // namespace
}  // namespace hushgrad
