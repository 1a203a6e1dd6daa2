#include "dpcore/sealed/archive.h"

#include <filesystem>
#include <fstream>

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "dpcore/error.h"
#include "dpcore/keys/keyring.h"
#include "dpcore/keys/seal_testing.h"

namespace hushgrad {
namespace {

using namespace seal_testing;
namespace fs = std::filesystem;

class ArchiveTest : public ::testing::Test {
 protected:
  ArchiveTest() {
    keyring_.create_key("icu");
    fs::create_directories(folder_ / "source/a/b");
    fs::create_directories(folder_ / "source/empty");
    write_file(folder_ / "source/readme", text_bytes("hello"));
    write_file(folder_ / "source/a/none", {});
    write_file(folder_ / "source/a/b/big", Bytes(3 << 20, std::byte{7}));
    write_file(folder_ / "source/run.sh", text_bytes("#!/bin/sh\n"));
    ::chmod((folder_ / "source/run.sh").c_str(), 0755);
  }
  ~ArchiveTest() override { fs::remove_all(folder_ / "source"); }

  void seal(const std::string& source, const std::string& name = "x", const SigningKey* identity = nullptr) {
    seal_path(folder_ / source, folder_ / name, {.dataset = "icu"}, keyring_,
              {.if_exists = IfExists::replace, .identity = identity})
        .publish();
  }
  void open(const std::string& target, IfExists if_exists = IfExists::refuse) {
    open_archive(folder_ / "x", folder_ / target, keyring_, {.if_exists = if_exists});
  }
  // An archive that seal_path() would never make.
  void seal_hostile(const std::string& meta, const std::vector<std::string>& names) {
    std::vector<SealedTensor> files;
    for (const std::string& name : names) files.push_back({name, "U8", {4}, text_bytes("evil")});
    write_sealed(folder_ / "x", {.dataset = "icu"}, meta, files, keyring_, IfExists::replace);
  }
  std::vector<std::string> leftovers() {
    std::vector<std::string> found;
    for (const std::string& name : folder_.names()) {
      if (name.ends_with(".hgtmp")) found.push_back(name);
    }
    return found;
  }

  TemporaryFolder folder_;
  Keyring keyring_ = Keyring::create(folder_ / "k");
};

TEST_F(ArchiveTest, AFolderComesBackWithAllInIt) {
  seal("source");
  open("out");
  EXPECT_EQ(read_file(folder_ / "out/readme"), bytes_of("hello"));
  EXPECT_EQ(read_file(folder_ / "out/a/none"), Bytes());
  EXPECT_EQ(read_file(folder_ / "out/a/b/big"), Bytes(3 << 20, std::byte{7}));
  EXPECT_TRUE(fs::is_directory(folder_ / "out/empty"));
  const auto mode = [&](const std::string& name) {
    struct stat status;
    EXPECT_EQ(::stat((folder_ / name).c_str(), &status), 0);
    return status.st_mode & 07777;
  };
  EXPECT_EQ(mode("out"), 0700u);
  EXPECT_EQ(mode("out/readme"), 0600u);
  EXPECT_EQ(mode("out/run.sh"), 0700u);
  EXPECT_TRUE(leftovers().empty());
}

TEST_F(ArchiveTest, AFileComesBack) {
  for (const char* name : {"source/readme", "source/a/none", "source/a/b/big"}) {
    seal(name);
    open("out", IfExists::replace);
    EXPECT_EQ(read_file(folder_ / "out"), read_file(folder_ / name));
  }
  EXPECT_TRUE(leftovers().empty());
}

TEST_F(ArchiveTest, NothingIsOverwrittenUnlessAsked) {
  seal("source");
  fs::create_directories(folder_ / "out");
  write_file(folder_ / "out/mine", text_bytes("mine"));
  EXPECT_THROW(open("out"), IoError);
  EXPECT_EQ(read_file(folder_ / "out/mine"), bytes_of("mine"));
  open("out", IfExists::replace);  // as a whole
  EXPECT_FALSE(fs::exists(folder_ / "out/mine"));
  EXPECT_TRUE(fs::exists(folder_ / "out/readme"));
  fs::create_symlink(folder_ / "source", folder_ / "link");
  fs::create_symlink(folder_ / "nowhere", folder_ / "dangling");
  for (const char* target : {"link", "dangling", "k"}) {
    EXPECT_THROW(open(target), IoError) << target;
    EXPECT_THROW(open(target, IfExists::replace), IoError) << target;
  }
  EXPECT_TRUE(fs::exists(folder_ / "source/readme"));
  seal("source/readme");
  for (const char* target : {"link", "dangling", "source"}) {
    EXPECT_THROW(open(target), IoError) << target;
    EXPECT_THROW(open(target, IfExists::replace), IoError) << target;
  }
  EXPECT_TRUE(leftovers().empty());
}

TEST_F(ArchiveTest, WhatIsNoPlainFileIsRefusedByName) {
  const auto refused = [&](const std::string& name, const std::string& what, const auto& make) {
    SCOPED_TRACE(what);
    const std::string path = folder_ / ("source/a/" + name);
    make(path);
    expect_error<InvalidArgument>([&] { seal("source"); }, what);
    expect_error<InvalidArgument>([&] { seal("source"); }, "a/" + name);
    if (!fs::is_directory(path)) expect_error<InvalidArgument>([&] { seal("source/a/" + name); }, what);
    EXPECT_FALSE(fs::exists(folder_ / "x"));
    fs::remove_all(path);
  };
  const std::string victim = folder_ / "k";
  refused("link", "symbolic link", [&](const std::string& p) { fs::create_symlink(victim, p); });
  refused("folderlink", "symbolic link", [&](const std::string& p) { fs::create_directory_symlink("/etc", p); });
  refused("hard", "hard link", [&](const std::string& p) { fs::create_hard_link(victim, p); });
  refused("fifo", "FIFO", [&](const std::string& p) { ::mkfifo(p.c_str(), 0600); });
  refused("socket", "FIFO, socket", [&](const std::string& p) {
    const int s = ::socket(AF_UNIX, SOCK_STREAM, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    p.copy(address.sun_path, sizeof(address.sun_path) - 1);
    ::bind(s, reinterpret_cast<sockaddr*>(&address), sizeof address);
    ::close(s);
  });
  for (mode_t bit : {S_ISUID, S_ISGID, S_ISVTX}) {
    refused("bits", "setuid", [&](const std::string& p) {
      write_file(p, text_bytes("x"));
      ::chmod(p.c_str(), 0700 | bit);
    });
  }
  write_file(folder_ / "source/a/\xFF", text_bytes("x"));
  EXPECT_THROW(seal("source"), InvalidArgument);
  fs::remove(folder_ / "source/a/\xFF");
  write_file(folder_ / "source/a/b\nc", text_bytes("x"));
  EXPECT_THROW(seal("source"), InvalidArgument);
  fs::remove(folder_ / "source/a/b\nc");
  std::string deep = "source";
  for (int i = 0; i < 70; ++i) deep += "/d";
  fs::create_directories(folder_ / deep);
  expect_error<InvalidArgument>([&] { seal("source"); }, "64 folders deep");
  fs::remove_all(folder_ / "source/d");
  EXPECT_THROW(seal("none"), IoError);
  seal("source");
  EXPECT_TRUE(leftovers().empty());
}

TEST_F(ArchiveTest, AFileThatChangesMeanwhileIsNoticed) {
  bool changed = false;
  SealOptions options;
  options.threads = 1;
  options.progress = [&](std::uint64_t, std::uint64_t) {
    if (!changed) write_file(folder_ / "source/a/b/big", Bytes(3 << 20, std::byte{8}));
    changed = true;
  };
  expect_error<IoError>(
      [&] { seal_path(folder_ / "source", folder_ / "x", {.dataset = "icu"}, keyring_, options); }, "a/b/big");
  EXPECT_FALSE(fs::exists(folder_ / "x"));
  EXPECT_TRUE(leftovers().empty());
}

// Attacks 11 and 22 for archives: somebody with the key makes one that wants to write elsewhere.
TEST_F(ArchiveTest, HostileArchivesWriteNothing) {
  const auto meta = [](const std::string& folders, const std::string& executable = "", const std::string& root = "folder") {
    return R"({"format":"hushgrad.archive/1","root":")" + root + R"(","folders":[)" + folders + R"(],"executable":[)" +
           executable + "]}";
  };
  const std::vector<std::pair<std::string, std::vector<std::string>>> faults{
      {meta(""), {"../evil"}},
      {meta(""), {"/tmp/evil"}},
      {meta(""), {"a/../../evil"}},
      {meta(""), {"."}},
      {meta(""), {".."}},
      {meta(""), {"a//b"}},
      {meta(""), {"a/"}},
      {meta(""), {"undeclared/evil"}},
      {meta(R"("a")"), {"a"}},
      {meta(R"("a")"), {"a/./b"}},
      {meta(R"("..")"), {"../evil"}},
      {meta(R"("/tmp")"), {"/tmp/evil"}},
      {meta(R"("a/b")"), {}},
      {meta(R"("a","a")"), {}},
      {meta(R"("a","a/..")"), {}},
      {meta(R"("")"), {}},
      {meta(R"(1)"), {}},
      {meta(R"("a\u0000b")"), {}},
      {meta("", R"("none")"), {"evil"}},
      {meta("", R"("evil","evil")"), {"evil"}},
      {meta("", "", "file"), {}},
      {meta("", "", "file"), {"a", "b"}},
      {meta("", "", "file"), {"../a"}},
      {meta(R"("a")", "", "file"), {"b"}},
      {meta("", "", "link"), {"a"}},
      {R"({"format":"hushgrad.archive/1"})", {"a"}},
      {R"({"format":"hushgrad.archive/1","root":"folder","folders":{},"executable":[]})", {}},
      {meta(""), {std::string(256, 'n')}},
  };
  for (const auto& [document, names] : faults) {
    SCOPED_TRACE(document + " " + (names.empty() ? "" : names.front()));
    seal_hostile(document, names);
    EXPECT_THROW(open("out/inside"), Error);
    EXPECT_THROW(open("out"), SealError);
    EXPECT_FALSE(fs::exists(folder_ / "out"));
    EXPECT_FALSE(fs::exists(folder_ / "evil"));
    EXPECT_FALSE(fs::exists("/tmp/evil"));
  }
  write_sealed(folder_ / "x", {.dataset = "icu"}, meta(""), std::vector<SealedTensor>{{"w", "F32", {1}, text_bytes("evil")}},
               keyring_, IfExists::replace);
  EXPECT_THROW(open("out"), SealError);
  seal_hostile("{}", {});
  EXPECT_THROW(open("out"), Unsupported);
  EXPECT_TRUE(leftovers().empty());
}

TEST_F(ArchiveTest, PlaintextAppearsOnlyCompleteAndAuthentic) {
  seal("source");
  const Bytes good = read_file(folder_ / "x");
  Bytes damaged = good;
  damaged[good.size() - 900] ^= std::byte{1};  // in the last segment: all before it decrypts
  write_file(folder_ / "x", damaged);
  EXPECT_THROW(open("out"), SealError);
  EXPECT_FALSE(fs::exists(folder_ / "out"));
  EXPECT_TRUE(leftovers().empty());
}

TEST_F(ArchiveTest, OpensOnlyWhatTheNamedWriterSigned) {
  const SigningKey writer = SigningKey::generate(), other = SigningKey::generate();
  seal("source", "x", &writer);
  const PublicKey good = writer.public_key(), bad = other.public_key();
  EXPECT_THROW(open_archive(folder_ / "x", folder_ / "out", keyring_, {.writer = &bad}), SealError);
  EXPECT_FALSE(fs::exists(folder_ / "out"));
  open_archive(folder_ / "x", folder_ / "out", keyring_, {.writer = &good});
  EXPECT_TRUE(fs::exists(folder_ / "out/readme"));
}

// Attack 22: the folder that holds the target is swapped for a link meanwhile.
TEST_F(ArchiveTest, AFolderThatIsSwappedForALinkRedirectsNothing) {
  seal("source");
  fs::create_directories(folder_ / "place");
  fs::create_directories(folder_ / "victim");
  bool swapped = false;
  OpenOptions options;
  options.progress = [&](std::uint64_t, std::uint64_t) {
    if (swapped) return;
    fs::rename(folder_ / "place", folder_ / "moved");
    fs::create_directory_symlink(folder_ / "victim", folder_ / "place");
    swapped = true;
  };
  open_archive(folder_ / "x", folder_ / "place/out", keyring_, options);
  EXPECT_TRUE(swapped);
  EXPECT_TRUE(fs::is_empty(folder_ / "victim"));
  EXPECT_TRUE(fs::exists(folder_ / "moved/out/readme"));
}

}  // namespace
}  // namespace hushgrad
