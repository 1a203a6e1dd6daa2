#include "accounting/event.h"

#include <limits>
#include <string>

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
           R"({"type":"NoOpDpEvent","extra":1})", R"({"type":"LaplaceDpEvent","noise_multiplier":1})",
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
