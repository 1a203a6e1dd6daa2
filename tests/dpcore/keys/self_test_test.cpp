#include "dpcore/keys/self_test.h"

#include <gtest/gtest.h>

namespace hushgrad {
namespace {

TEST(SelfTest, EveryAlgorithmKnowsItsAnswer) {
  const auto tests = run_self_tests();
  ASSERT_EQ(tests.size(), 6u);
  for (const SelfTest& test : tests) EXPECT_TRUE(test.passed) << test.name;
  EXPECT_NO_THROW(require_self_tests());
}

}  // namespace
}  // namespace hushgrad
