#include "accounting/event.h"

#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "dpcore/error.h"

namespace hushgrad {
namespace {

Event step(double q = 0.01, double s = 1) { return Event::poisson_sampled(q, Event::gaussian(s)); }

TEST(Event, CanonicalJson) {
  EXPECT_EQ(Event::gaussian(1).to_json(), R"({"noise_multiplier":1.0,"type":"GaussianDpEvent"})");
  EXPECT_EQ(Event::gaussian(0.1).to_json(), R"({"noise_multiplier":0.1,"type":"GaussianDpEvent"})");
  EXPECT_EQ(Event::gaussian(1e-5).to_json(), R"({"noise_multiplier":1e-05,"type":"GaussianDpEvent"})");
  EXPECT_EQ(Event::gaussian(-0.0).to_json(), R"({"noise_multiplier":0.0,"type":"GaussianDpEvent"})");
  EXPECT_EQ(Event::self_composed(step(), 7).to_json(),
            R"({"count":7,"event":{"event":{"noise_multiplier":1.0,"type":"GaussianDpEvent"},)"
            R"("sampling_probability":0.01,"type":"PoissonSampledDpEvent"},"type":"SelfComposedDpEvent"})");
  EXPECT_EQ(Event::composed({Event::no_op(), Event::non_private()}).to_json(),
            R"({"events":[{"type":"NoOpDpEvent"},{"type":"NonPrivateDpEvent"}],"type":"ComposedDpEvent"})");
  EXPECT_EQ(Event::composed({}).to_json(), R"({"events":[],"type":"ComposedDpEvent"})");
  EXPECT_EQ(Event::unsupported("say \"why\"\n").to_json(), R"({"reason":"say \"why\"\n","type":"UnsupportedDpEvent"})");
}

TEST(Event, ReadsBackWhatItWrites) {
  for (const Event& event :
       {Event::no_op(), Event::non_private(), Event::unsupported("\xC3\xA4"), Event::gaussian(0.1 + 0.2),
        Event::gaussian(std::numeric_limits<double>::denorm_min()), Event::gaussian(1e308), step(1.0 / 3),
        Event::self_composed(step(), std::numeric_limits<std::int64_t>::max()), Event::composed({}),
        Event::composed({step(), Event::composed({Event::no_op()}), step()})}) {
    EXPECT_EQ(Event::from_json(event.to_json()), event) << event.to_json();
    EXPECT_EQ(Event::from_json(event.to_json()).to_json(), event.to_json());
  }
}

// One of every kind: a new kind belongs in this list.
std::vector<Event> one_of_each() {
  const Event noise = Event::gaussian(2);
  return {noise, Event::laplace(1.5), Event::discrete_gaussian(3, 2), Event::mixture_of_gaussians(1, {0, 1, 2}, {0.5, 0.25, 0.25}),
          step(), Event::truncated_subsampled_gaussian(100, 0.1, 20, 1), Event::sampled_without_replacement(100, 10, noise),
          Event::shuffled_epoch(noise), Event::balls_in_bins(10, noise), Event::matrix_factorization(1, {1, 0.5, 0.25}, 12, 3, 4),
          Event::tree_aggregation(1, {10, 0, 3}), Event::group(3, step()), Event::adaptive_clipping(1, 5),
          Event::repeat_and_select(noise, 10, std::numeric_limits<double>::infinity()),
          Event::finite_precision(noise, 1 << 18, 1e-9, 1e-20), Event::self_composed(noise, 3), Event::composed({noise, noise}),
          Event::no_op(), Event::non_private(), Event::unsupported("x")};
}

TEST(Event, EveryKindReadsBackAndDiffers) {
  const auto all = one_of_each();
  ASSERT_EQ(all.size(), static_cast<std::size_t>(EventKind::unsupported) + 1);
  for (std::size_t i = 0; i < all.size(); ++i) {
    EXPECT_EQ(static_cast<std::size_t>(all[i].kind()), i);
    EXPECT_EQ(Event::from_json(all[i].to_json()), all[i]) << all[i].to_json();
    for (std::size_t j = 0; j < i; ++j) EXPECT_NE(all[i], all[j]);
  }
}

TEST(Event, FieldsAreAskedByName) {
  const Event event = Event::truncated_subsampled_gaussian(100, 0.1, 20, 1.5);
  EXPECT_EQ(event.integer("dataset_size"), 100);
  EXPECT_EQ(event.number("sampling_probability"), 0.1);
  EXPECT_EQ(event.noise_multiplier(), 1.5);
  EXPECT_THROW(event.number("dataset_size"), InvalidState);
  EXPECT_THROW(event.inner(), InvalidState);
  EXPECT_EQ(Event::tree_aggregation(1, {10, 0}).integers("step_counts"), (std::vector<std::int64_t>{10, 0}));
  EXPECT_EQ(Event::mixture_of_gaussians(1, {0, 2}, {0.5, 0.5}).numbers("sensitivities"), (std::vector<double>{0, 2}));
}

TEST(Event, EveryMakerRefusesWhatIsOutsideItsDomain) {
  const double nan = std::numeric_limits<double>::quiet_NaN(), infinity = std::numeric_limits<double>::infinity();
  const Event noise = Event::gaussian(1);
  for (double bad : {-1.0, nan, infinity}) {
    EXPECT_THROW(Event::laplace(bad), InvalidArgument);
    EXPECT_THROW(Event::discrete_gaussian(bad, 1), InvalidArgument);
    EXPECT_THROW(Event::mixture_of_gaussians(bad, {1}, {1}), InvalidArgument);
    EXPECT_THROW(Event::mixture_of_gaussians(1, {bad}, {1}), InvalidArgument);
    EXPECT_THROW(Event::mixture_of_gaussians(1, {1, 2}, {bad, 1}), InvalidArgument);
    EXPECT_THROW(Event::truncated_subsampled_gaussian(10, bad, 3, 1), InvalidArgument);
    EXPECT_THROW(Event::truncated_subsampled_gaussian(10, 0.1, 3, bad), InvalidArgument);
    EXPECT_THROW(Event::matrix_factorization(1, {1, bad}, 5, 1, 1), InvalidArgument);
    EXPECT_THROW(Event::tree_aggregation(bad, {1}), InvalidArgument);
    EXPECT_THROW(Event::adaptive_clipping(1, bad), InvalidArgument);
    EXPECT_THROW(Event::repeat_and_select(noise, bad, 0), InvalidArgument);
    EXPECT_THROW(Event::finite_precision(noise, bad, 0, 0), InvalidArgument);
    EXPECT_THROW(Event::finite_precision(noise, 2, bad, 0), InvalidArgument);
    EXPECT_THROW(Event::finite_precision(noise, 2, 0, bad), InvalidArgument);
  }
  EXPECT_THROW(Event::discrete_gaussian(1, 0), InvalidArgument);
  EXPECT_THROW(Event::mixture_of_gaussians(1, {}, {}), InvalidArgument);
  EXPECT_THROW(Event::mixture_of_gaussians(1, {1, 2}, {1}), InvalidArgument);
  EXPECT_THROW(Event::mixture_of_gaussians(1, {1, 2}, {0.5, 0.6}), InvalidArgument);
  EXPECT_THROW(Event::truncated_subsampled_gaussian(0, 0.1, 3, 1), InvalidArgument);
  EXPECT_THROW(Event::truncated_subsampled_gaussian(10, 0.1, -1, 1), InvalidArgument);
  EXPECT_THROW(Event::sampled_without_replacement(0, 0, noise), InvalidArgument);
  EXPECT_THROW(Event::sampled_without_replacement(10, 11, noise), InvalidArgument);
  EXPECT_THROW(Event::balls_in_bins(0, noise), InvalidArgument);
  EXPECT_THROW(Event::matrix_factorization(1, {}, 5, 1, 1), InvalidArgument);
  EXPECT_THROW(Event::matrix_factorization(1, {0, 0}, 5, 1, 1), InvalidArgument);
  EXPECT_THROW(Event::matrix_factorization(1, {1, 2}, 5, 1, 1), InvalidArgument);
  EXPECT_THROW(Event::matrix_factorization(1, {1}, 0, 1, 1), InvalidArgument);
  EXPECT_THROW(Event::matrix_factorization(1, {1}, 5, 0, 1), InvalidArgument);
  EXPECT_THROW(Event::matrix_factorization(1, {1}, 5, 1, 0), InvalidArgument);
  EXPECT_THROW(Event::tree_aggregation(1, {-1}), InvalidArgument);
  EXPECT_THROW(Event::tree_aggregation(1, {}), InvalidArgument);
  EXPECT_THROW(Event::group(0, noise), InvalidArgument);
  EXPECT_THROW(Event::repeat_and_select(noise, 0.5, 0), InvalidArgument);
  EXPECT_THROW(Event::repeat_and_select(noise, 2, -0.5), InvalidArgument);
  EXPECT_THROW(Event::repeat_and_select(noise, 2, nan), InvalidArgument);
  EXPECT_THROW(Event::finite_precision(noise, 1, 0, 0), InvalidArgument);
  EXPECT_THROW(Event::from_json(R"({"dataset_size":9007199254740993,"noise_multiplier":1,"sampling_probability":0.1,)"
                                R"("truncated_batch_size":1,"type":"TruncatedSubsampledGaussianDpEvent"})"),
               InvalidArgument);
  EXPECT_THROW(Event::from_json(R"({"noise_multiplier":"infinity","type":"GaussianDpEvent"})"), InvalidArgument);
}

TEST(Event, OrderOfKeysAndWhiteSpaceAreFree) {
  EXPECT_EQ(Event::from_json(" { \"type\" : \"GaussianDpEvent\", \"noise_multiplier\" : 2 } "), Event::gaussian(2));
}

TEST(Event, EqualityIsOfTrees) {
  EXPECT_EQ(step(), step());
  EXPECT_NE(step(0.01), step(0.02));
  EXPECT_NE(Event::self_composed(step(), 1), step());
  EXPECT_NE(Event::composed({step(), Event::no_op()}), Event::composed({Event::no_op(), step()}));
  EXPECT_NE(Event::unsupported("a"), Event::unsupported("b"));
}

TEST(Event, RefusesWhatIsOutsideTheDomain) {
  const double nan = std::numeric_limits<double>::quiet_NaN(), infinity = std::numeric_limits<double>::infinity();
  for (double bad : {-1.0, nan, infinity, -infinity}) EXPECT_THROW(Event::gaussian(bad), InvalidArgument);
  for (double bad : {-0.1, 1.0001, nan, infinity}) EXPECT_THROW(step(bad), InvalidArgument);
  EXPECT_THROW(Event::self_composed(step(), -1), InvalidArgument);
  EXPECT_THROW(Event::unsupported("\xff"), InvalidArgument);
  EXPECT_THROW(Event::unsupported(std::string(Event::max_reason_bytes + 1, 'x')), InvalidArgument);
  EXPECT_NO_THROW(Event::gaussian(0));
  EXPECT_NO_THROW(step(0));
  EXPECT_NO_THROW(step(1));
}

TEST(Event, RefusesMalformedText) {
  for (const char* text : {
           "", "{", "[]", "1", "null", "{}", "nonsense", R"({"type":3})", R"({"type":"NoOpDpEvent")",
           R"({"type":"NoOpDpEvent"} x)", R"({"type":"NoOpDpEvent","type":"NoOpDpEvent"})",
           R"({"type":"NoOpDpEvent","extra":1})", R"({"type":"UnheardOfDpEvent","noise_multiplier":1})",
           R"({"type":"GaussianDpEvent"})", R"({"type":"GaussianDpEvent","noise_multiplier":"1"})",
           R"({"type":"GaussianDpEvent","noise_multiplier":-1})", R"({"type":"GaussianDpEvent","noise_multiplier":1e999})",
           R"({"type":"GaussianDpEvent","noise_multiplier":NaN})",
           R"({"type":"SelfComposedDpEvent","event":{"type":"NoOpDpEvent"},"count":1.5})",
           R"({"type":"SelfComposedDpEvent","event":{"type":"NoOpDpEvent"},"count":1e3})",
           R"({"type":"SelfComposedDpEvent","event":{"type":"NoOpDpEvent"},"count":9223372036854775808})",
           R"({"type":"SelfComposedDpEvent","event":{"type":"NoOpDpEvent"},"count":-1})",
           R"({"type":"ComposedDpEvent","events":{}})", R"({"type":"ComposedDpEvent","events":[1]})",
           R"({"type":"UnsupportedDpEvent","reason":1})", "{\"type\":\"UnsupportedDpEvent\",\"reason\":\"\xff\"}",
       }) {
    EXPECT_THROW(Event::from_json(text), InvalidArgument) << text;
  }
}

TEST(Event, RefusesTooDeepTooManyTooLong) {
  Event deep = Event::no_op();
  for (int i = 1; i < Event::max_depth; ++i) deep = Event::composed({deep});
  EXPECT_EQ(Event::from_json(deep.to_json()), deep);
  EXPECT_THROW(Event::composed({deep}), InvalidArgument);
  std::string text;
  for (int i = 0; i < 100'000; ++i) text += "{\"events\":[";
  EXPECT_THROW(Event::from_json(text), InvalidArgument);
  EXPECT_THROW(Event::from_json(std::string(100'000, '[')), InvalidArgument);
  EXPECT_THROW(Event::from_json(std::string(Event::max_json_bytes + 1, ' ')), InvalidArgument);
  // Shared children are cheap to make and exponentially many to walk.
  Event wide = Event::no_op();
  EXPECT_THROW(
      for (int i = 0; i < Event::max_depth - 1; ++i) wide = Event::composed({wide, wide}), InvalidArgument);
}

TEST(Event, FieldsOfAnotherKindThrow) {
  EXPECT_THROW(Event::no_op().noise_multiplier(), InvalidState);
  EXPECT_THROW(Event::no_op().inner(), InvalidState);
  EXPECT_THROW(step().count(), InvalidState);
  EXPECT_THROW(step().events(), InvalidState);
  EXPECT_THROW(step().reason(), InvalidState);
  EXPECT_EQ(step().inner().noise_multiplier(), 1);
  EXPECT_EQ(step().type_name(), "PoissonSampledDpEvent");
}

}  // namespace
}  // namespace hushgrad
