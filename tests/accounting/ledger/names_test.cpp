#include "accounting/ledger/names.h"

#include <gtest/gtest.h>

#include <string>

#include "dpcore/error.h"

namespace hushgrad::ledger {
namespace {

TEST(Names, PlainAndForeignScriptsAreAccepted) {
  for (const char* name : {"mimic-iv", "Charité Kardiologie", "病院データ", "بيانات", "a b", "\xf0\x9f\x8f\xa5", "x\xcc\x81"}) {
    EXPECT_NO_THROW(check_name("dataset", name, false)) << name;
  }
}

TEST(Names, EmptyOnlyWhereAllowed) {
  EXPECT_NO_THROW(check_name("actor", "", true));
  EXPECT_THROW(check_name("dataset", "", false), InvalidArgument);
}

TEST(Names, LengthIsCountedInBytes) {
  EXPECT_NO_THROW(check_name("dataset", std::string(256, 'a'), false));
  EXPECT_THROW(check_name("dataset", std::string(257, 'a'), false), InvalidArgument);
}

// From RFC 3629 section 10 and Unicode's table of well-formed byte sequences (3-7).
TEST(Names, MalformedUtf8IsRefused) {
  for (const char* name : {"\x80", "\xc0\xaf", "\xc1\xbf", "\xe0\x9f\xbf", "\xe2\x82", "\xed\xa0\x80", "\xf0\x8f\xbf\xbf",
                           "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "a\xc3"}) {
    EXPECT_THROW(check_name("dataset", name, false), InvalidArgument) << name;
  }
}

TEST(Names, ControlAndDirectionCharactersAreRefused) {
  EXPECT_THROW(check_name("dataset", std::string("a\0b", 3), false), InvalidArgument);
  for (const char* name : {"a\nb", "a\x1b[31m", "\x7f", "\xc2\x85", "\xe2\x80\xa8", "\xe2\x80\xae" "a", "\xe2\x81\xa6", "\xd8\x9c"}) {
    EXPECT_THROW(check_name("dataset", name, false), InvalidArgument) << name;
  }
}

TEST(Names, OuterSpacesWouldMakeASecondBudget) {
  EXPECT_THROW(check_name("dataset", "mimic ", false), InvalidArgument);
  EXPECT_THROW(check_name("dataset", " mimic", false), InvalidArgument);
}

TEST(Names, WhatNobodySeesWouldMakeASecondDataset) {
  for (const char* name : {"ward\u00ad-7", "ward\u200b-7", "\ufeffward-7", "ward-7\u2060", "ward-7\u2063", "ward-7\u180e", "ward-7\u034f",
                           "ward-7\U000e0020", "ward-7\U000e0100", "\ufff9ward-7"}) {
    EXPECT_THROW(check_name("dataset", name, false), InvalidArgument) << name;
  }
  for (const char* name : {"ward-7\u00a0", "\u3000ward-7", "ward-7\u2009", "\u202fward-7", "\u00a0"}) {
    EXPECT_THROW(check_name("dataset", name, false), InvalidArgument) << "a space at an end: " << name;
  }
  for (const char* name : {"ward\u00a07", "क्\u200dष", "می\u200cخواهم"}) EXPECT_NO_THROW(check_name("dataset", name, false)) << name;
}

TEST(Names, TheMessageDoesNotRepeatTheName) {
  try {
    check_name("dataset", "secret\n", false);
    FAIL();
  } catch (const InvalidArgument& error) {
    EXPECT_EQ(std::string(error.what()).find("secret"), std::string::npos);
  }
}

}  // namespace
}  // namespace hushgrad::ledger
