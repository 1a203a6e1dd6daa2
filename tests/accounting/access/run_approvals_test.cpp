// Which papers a run takes, and what is said about the others.
#include "accounting/access/run_approvals.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <functional>

#include "accounting/access/people.h"
#include "accounting/ledger/temporary_folder.h"
#include "dpcore/error.h"

namespace hushgrad {
namespace {

using ledger_test::new_key;

class RunApprovals : public testing::Test {
 protected:
  Operation request(const std::string& action = "train", const std::string& purpose = "triage") const {
    return make_operation(action, run_scope("ward-7", purpose), "a test", trainer_->public_key().id(), 60);
  }
  auto pairs(const std::vector<std::string>& texts) const { return approvals_of_run(texts, "ward-7", "triage", trainer_->public_key().id()); }
  static std::string fault_of(const std::function<void()>& body) {
    try {
      body();
    } catch (const InvalidArgument& error) {
      return error.what();
    }
    return "";
  }
  std::string fault_of(const std::vector<std::string>& texts) const { return fault_of([&] { pairs(texts); }); }

  ledger_test::Key trainer_ = new_key(), ann_ = new_key(), bob_ = new_key();
};

TEST_F(RunApprovals, RequestsAndApprovalsComeInAnyOrder) {
  const Operation one = request(), two = request();
  const auto found = pairs({to_text(approve(two, *ann_)), to_text(one), to_text(approve(one, *bob_)), to_text(two), to_text(approve(two, *bob_))});
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].first, one);
  ASSERT_EQ(found[0].second.size(), 1u);
  EXPECT_EQ(found[0].second[0].approver, bob_->public_key().id());
  EXPECT_EQ(found[1].second.size(), 2u);
  EXPECT_TRUE(pairs({}).empty());
}

TEST_F(RunApprovals, WhatIsMissingIsSaid) {
  const Operation good = request();
  const std::string signature = to_text(approve(good, *ann_));
  EXPECT_NE(fault_of({to_text(good)}).find("hushgrad approve sign"), std::string::npos);
  EXPECT_NE(fault_of({signature}).find("the request that it signs"), std::string::npos);
  const Operation edited = request();
  EXPECT_NE(fault_of({to_text(edited), signature}).find("edited"), std::string::npos);
  for (const Operation& other : {request("export_model"), request("train", "billing")}) {
    const std::string fault = fault_of({to_text(other), to_text(approve(other, *ann_))});
    EXPECT_NE(fault.find("hushgrad approve request train dataset='ward-7' purpose='triage'"), std::string::npos) << fault;
  }
  EXPECT_NE(fault_of([&] { approvals_of_run({to_text(good), signature}, "ward-7", "triage", ann_->public_key().id()); }).find("cannot be passed on"),
            std::string::npos);
  for (const char* text : {"", "{}", "[]", "null", "{\"signature\": 1}", "\xff"}) EXPECT_NE(fault_of({std::string(text)}), "") << text;
}

TEST_F(RunApprovals, OnlyRegularSmallFilesAreRead) {
  const ledger_test::TemporaryFolder folder;
  const auto path = [&](const char* name) { return (std::filesystem::path(folder.path()) / name).string(); };
  std::ofstream(path("good")) << "text";
  EXPECT_EQ(approval_file(path("good")), "text");
  EXPECT_THROW(approval_file(path("none")), IoError);
  ASSERT_EQ(mkfifo(path("pipe").c_str(), 0600), 0);
  for (const std::string& no_file : {std::string("/dev/zero"), std::string(folder.path()), path("pipe"), path("good") + '\0'}) {
    EXPECT_NE(fault_of([&] { approval_file(no_file); }), "") << no_file;
  }
  std::ofstream(path("large")) << std::string((1 << 20) + 1, ' ');
  EXPECT_NE(fault_of([&] { approval_file(path("large")); }).find("larger"), std::string::npos);
}

}  // namespace
}  // namespace hushgrad
