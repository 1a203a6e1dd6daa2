// The life of keys: states, dates, limits, people, approvals, emergencies, destruction, restored copies.
#include <filesystem>
#include <fstream>
#include <thread>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dpcore/error.h"
#include "dpcore/keys/certificate.h"
#include "dpcore/keys/kdf.h"
#include "dpcore/keys/keyring.h"
#include "dpcore/keys/new_keyring.h"
#include "dpcore/keys/seal_testing.h"
#include "dpcore/keys/state_folder.h"
#include "dpcore/keys/utc_time.h"

namespace hushgrad {
namespace {

using namespace seal_testing;
namespace fs = std::filesystem;

const Bytes kDataKey(32, std::byte{7});

std::string state_of(const Keyring& keyring, const std::string& key_id) { return keyring.key(key_id).state; }

std::string text_of(const std::string& path) {
  const Bytes bytes = read_file(path);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

template <typename Call>
std::string denied(const Call& call) {
  try {
    call();
  } catch (const Denied& error) {
    return error.reason();
  }
  return "allowed";
}

class KeyringLife : public ::testing::Test {
 protected:
  TemporaryFolder folder;
  Keyring keyring = Keyring::create(folder / "k");
};

TEST_F(KeyringLife, StatesFollowEachOther) {
  keyring.create_key("icu");
  const WrappedKey wrapped = keyring.wrap("icu", kDataKey);
  const std::string& id = wrapped.key_id;

  keyring.suspend({.dataset = "icu"}, "audit");
  EXPECT_EQ(state_of(keyring, id), "suspended");
  EXPECT_THROW(keyring.wrap("icu", kDataKey), KeyError);
  expect_error<KeyError>([&] { keyring.unwrap(wrapped); }, "suspended");
  EXPECT_THROW(keyring.create_key("icu"), KeyError);
  EXPECT_THROW(keyring.rotate_key("icu"), KeyError);
  keyring.resume({.dataset = "icu"}, "audit over");
  EXPECT_EQ(state_of(keyring, id), "active");
  EXPECT_NO_THROW(keyring.unwrap(wrapped));

  keyring.rotate_key("icu");
  EXPECT_EQ(state_of(keyring, id), "deactivated");
  EXPECT_NO_THROW(keyring.unwrap(wrapped));
  keyring.suspend({.dataset = "icu"}, "audit");
  keyring.resume({.dataset = "icu"}, "audit over");
  EXPECT_EQ(state_of(keyring, id), "deactivated");

  keyring.revoke({.key_id = id}, "stolen laptop");
  EXPECT_EQ(state_of(keyring, id), "compromised");
  expect_error<KeyError>([&] { keyring.unwrap(wrapped); }, "compromised");
  EXPECT_NO_THROW(keyring.wrap("icu", kDataKey));
  EXPECT_THROW(keyring.resume({.key_id = id}, "no"), KeyError);
  keyring.reinstate({.key_id = id}, "found again, never opened");
  EXPECT_EQ(state_of(keyring, id), "deactivated");
  EXPECT_NO_THROW(keyring.unwrap(wrapped));

  keyring.shred({.key_id = id}, "retention", {});
  EXPECT_EQ(state_of(keyring, id), "destroyed");
  expect_error<KeyError>([&] { keyring.unwrap(wrapped); }, "destroyed");
  for (const auto& undo : {&Keyring::resume, &Keyring::reinstate}) {
    EXPECT_THROW((keyring.*undo)({.key_id = id}, "no", {}), KeyError);
  }
  EXPECT_THROW(keyring.revoke({.dataset = "unknown"}, "r"), KeyError);
  EXPECT_THROW(keyring.revoke({}, "r"), InvalidArgument);
  EXPECT_THROW(keyring.revoke({.dataset = "icu", .tenant = "default"}, "r"), InvalidArgument);
  EXPECT_THROW(keyring.revoke({.dataset = "icu"}, ""), InvalidArgument);
}

TEST_F(KeyringLife, RevocationReachesProcessesThatRun) {
  keyring.create_key("icu");
  const WrappedKey wrapped = keyring.wrap("icu", kDataKey);
  int to_child[2], to_parent[2];
  ASSERT_EQ(::pipe(to_child), 0);
  ASSERT_EQ(::pipe(to_parent), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const Keyring running = Keyring::open(folder / "k");
    running.unwrap(wrapped);
    char c = 1;
    if (::write(to_parent[1], &c, 1) != 1 || ::read(to_child[0], &c, 1) != 1) ::_exit(2);
    try {
      running.unwrap(wrapped);
      ::_exit(1);
    } catch (const KeyError&) {
      ::_exit(0);
    }
  }
  char c;
  ASSERT_EQ(::read(to_parent[0], &c, 1), 1);
  keyring.revoke({.dataset = "icu"}, "stolen");
  ASSERT_EQ(::write(to_child[1], &c, 1), 1);
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 0);
  fs::remove(folder / "k");
  EXPECT_THROW(keyring.unwrap(wrapped), KeyError);
}

TEST_F(KeyringLife, DatesBindAndClocksSetBackDoNot) {
  const std::int64_t now = utc_now();
  keyring.create_key("later", {.activates = now + 3600});
  EXPECT_EQ(keyring.list()[0].state, "pre-active");
  EXPECT_THROW(keyring.wrap("later", kDataKey), KeyError);

  keyring.create_key("short", {.expires = now + 100});
  const WrappedKey wrapped = keyring.wrap("short", kDataKey);
  // Somebody saw a later time: the clock of this machine was set back.
  const std::string id = nlohmann::json::parse(keyring.describe())["id"];
  SeenKeyring seen = *seen_keyring(id);
  seen.time = now + 100;
  remember_keyring(id, seen);
  EXPECT_EQ(keyring.list()[1].state, "deactivated");
  EXPECT_THROW(keyring.wrap("short", kDataKey), KeyError);
  EXPECT_NO_THROW(keyring.unwrap(wrapped));
  keyring.rotate_key("short");
  EXPECT_EQ(keyring.wrap("short", kDataKey).key_id, keyring.list()[2].id);
  EXPECT_THROW(keyring.create_key("x", {.expires = now - 1}), InvalidArgument);
  EXPECT_THROW(keyring.create_key("x", {.activates = now + 10, .expires = now + 5}), InvalidArgument);
}

TEST_F(KeyringLife, UsesAreCountedBeforeTheKeyIsUsed) {
  keyring.create_key("icu", {.usage_limit = 3});
  for (int i = 0; i < 3; ++i) Keyring::open(folder / "k").wrap("icu", kDataKey);
  expect_error<KeyError>([&] { keyring.wrap("icu", kDataKey); }, "limit");
  keyring.rotate_key("icu");
  EXPECT_NO_THROW(keyring.wrap("icu", kDataKey));
}

TEST_F(KeyringLife, TenantsAreApart) {
  keyring.create_key("a", {.tenant = "clinic"});
  keyring.create_key("b", {.tenant = "clinic"});
  keyring.create_key("c", {.tenant = "lab"});
  EXPECT_THROW(keyring.create_key("a", {.tenant = "lab"}), InvalidArgument);
  const WrappedKey a = keyring.wrap("a", kDataKey), c = keyring.wrap("c", kDataKey);
  keyring.shred({.tenant = "clinic"}, "contract ended", {});
  EXPECT_THROW(keyring.unwrap(a), KeyError);
  EXPECT_NO_THROW(keyring.unwrap(c));
  EXPECT_FALSE(keyring.has_key("b"));
  keyring.create_key("a", {.tenant = "clinic"});
  EXPECT_TRUE(Keyring::open(folder / "k").has_key("a"));
  EXPECT_EQ(keyring.key(c.key_id).tenant, "lab");
}

TEST_F(KeyringLife, ARestoredOlderKeyringIsNoticed) {
  keyring.create_key("icu");
  fs::copy_file(folder / "k", folder / "backup");
  keyring.revoke({.dataset = "icu"}, "stolen");
  const WrappedKey after{keyring.list()[0].id, Bytes(40), keyring.generation()};
  fs::copy_file(folder / "backup", folder / "k", fs::copy_options::overwrite_existing);
  ::chmod((folder / "k").c_str(), 0600);
  expect_error<KeyError>([&] { Keyring::open(folder / "k"); }, "older copy");
  expect_error<KeyError>([&] { keyring.list(); }, "older copy");

  // Where nothing was seen, the sealed file still knows.
  const TemporaryFolder elsewhere;
  const std::string state = ::getenv("HUSHGRAD_STATE_DIR") ? ::getenv("HUSHGRAD_STATE_DIR") : "";
  ::setenv("HUSHGRAD_STATE_DIR", (elsewhere / "state").c_str(), 1);
  expect_error<KeyError>([&] { Keyring::open(folder / "k").unwrap(after); }, "older copy");
  ::setenv("HUSHGRAD_STATE_DIR", state.c_str(), 1);
}

TEST_F(KeyringLife, ARestoreThatIsMeantIsLoggedAndTaken) {
  keyring.create_key("icu");
  fs::copy_file(folder / "k", folder / "backup");
  keyring.rotate_key("icu");
  const std::uint64_t newest = keyring.generation();
  fs::copy_file(folder / "backup", folder / "k", fs::copy_options::overwrite_existing);
  ::chmod((folder / "k").c_str(), 0600);
  Keyring::accept_restored(folder / "k", {}, "disk failed", {});
  const Keyring restored = Keyring::open(folder / "k");
  EXPECT_GT(restored.generation(), newest);
  EXPECT_EQ(restored.verify().entries().back().action, "accept-restored");
}

TEST_F(KeyringLife, PassphraseAndMachineProtectTheRoot) {
  const Bytes passphrase = bytes_of("correct horse"), other = bytes_of("battery staple");
  Keyring locked = Keyring::create(folder / "locked", {.passphrase = passphrase}, true);
  locked.create_key("icu");
  const WrappedKey wrapped = locked.wrap("icu", kDataKey);
  EXPECT_THROW(Keyring::open(folder / "locked"), KeyError);
  expect_error<KeyError>([&] { Keyring::open(folder / "locked", {.passphrase = other}); }, "passphrase");
  EXPECT_NO_THROW(Keyring::open(folder / "locked", {.passphrase = passphrase}).unwrap(wrapped));
  expect_error<KeyError>([&] { Keyring::open(folder / "k", {.passphrase = passphrase}); }, "no passphrase");

  const TemporaryFolder elsewhere;
  const std::string state = ::getenv("HUSHGRAD_STATE_DIR") ? ::getenv("HUSHGRAD_STATE_DIR") : "";
  ::setenv("HUSHGRAD_STATE_DIR", (elsewhere / "state").c_str(), 1);
  EXPECT_THROW(Keyring::open(folder / "locked", {.passphrase = passphrase}), KeyError);
  ::setenv("HUSHGRAD_STATE_DIR", state.c_str(), 1);

  Keyring running = Keyring::open(folder / "locked", {.passphrase = passphrase});
  locked.protect({.passphrase = other}, false);
  EXPECT_NO_THROW(locked.unwrap(wrapped));
  expect_error<KeyError>([&] { running.unwrap(wrapped); }, "changed");
  EXPECT_THROW(Keyring::open(folder / "locked", {.passphrase = passphrase}), KeyError);
  EXPECT_NO_THROW(Keyring::open(folder / "locked", {.passphrase = other}).unwrap(wrapped));
  locked.protect({}, false);
  EXPECT_NO_THROW(Keyring::open(folder / "locked").unwrap(wrapped));
}

TEST_F(KeyringLife, ShreddingLeavesNoKeyInTheFileOrItsOldBytes) {
  keyring.create_key("icu");
  const auto wrapped_text = [](const std::string& path) {
    return std::string(nlohmann::json::parse(text_of(path).substr(19, text_of(path).find("\nroot") - 19))["keys"][1]["wrapped"]);
  };
  const std::string secret = wrapped_text(folder / "k");
  ASSERT_EQ(secret.size(), 80u);
  fs::create_hard_link(folder / "k", folder / "old");
  ::unlink((folder / "old2").c_str());
  const std::string text = keyring.shred({.dataset = "icu"}, "retention ended", {"run/7.hgc", "run/8.hgc"});
  EXPECT_EQ(text_of(folder / "k").find(secret), std::string::npos);
  EXPECT_EQ(text_of(folder / "old").find_first_not_of('\0'), std::string::npos);
  EXPECT_EQ(text_of(folder / "k.log").find(secret), std::string::npos);

  EXPECT_TRUE(verify_certificate(text, keyring.public_key()));
  const auto certificate = nlohmann::json::parse(text);
  EXPECT_EQ(certificate["generation"], keyring.generation());
  EXPECT_EQ(certificate["keys"][0]["dataset"], "icu");
  EXPECT_EQ(certificate["files"].size(), 2u);
  EXPECT_EQ(certificate["log"]["hash"], keyring.verify().hash_at(keyring.verify().sequence()));
  std::string altered = text;
  altered.replace(altered.find("7.hgc"), 1, "9");
  EXPECT_FALSE(verify_certificate(altered, keyring.public_key()));
  EXPECT_FALSE(verify_certificate(text, SigningKey::generate().public_key()));
  EXPECT_FALSE(verify_certificate("{}", keyring.public_key()));

  // The certificate can be had again: another signature, the same words.
  const std::string again = Keyring::open(folder / "k").certificate({.dataset = "icu"});
  EXPECT_TRUE(verify_certificate(again, keyring.public_key()));
  auto same = nlohmann::json::parse(again);
  same["signature"] = certificate["signature"];
  EXPECT_EQ(same, certificate);
  EXPECT_THROW(keyring.certificate({.dataset = "other"}), KeyError);
  EXPECT_THROW(keyring.certificate({.tenant = "default"}), KeyError);  // nobody shredded the tenant
}

TEST_F(KeyringLife, AnAnnouncedDestructionIsNoneUntilItIsDone) {
  keyring.create_key("icu", {.expires = utc_now() + 1000});
  keyring.rotate_key("icu");
  const std::string log = folder / "k.log";
  const TemporaryFolder elsewhere;
  fs::copy_file(folder / "k", elsewhere / "k");
  fs::copy_file(log, elsewhere / "k.log");
  for (const char* name : {"k", "k.log"}) ::chmod((elsewhere / name).c_str(), 0600);
  keyring.shred({.dataset = "icu"}, "retention ended", {"a", "b c"});
  // As if killed between the log and the keyring, seen by somebody who knows nothing newer.
  fs::copy_file(log, elsewhere / "k.log", fs::copy_options::overwrite_existing);
  const std::string state = ::getenv("HUSHGRAD_STATE_DIR") ? ::getenv("HUSHGRAD_STATE_DIR") : "";
  ::setenv("HUSHGRAD_STATE_DIR", (elsewhere / "state").c_str(), 1);
  Keyring stopped = Keyring::open(elsewhere / "k");
  EXPECT_THROW(stopped.certificate({.dataset = "icu"}), KeyError);
  EXPECT_TRUE(stopped.has_key("icu"));
  ::sleep(1);  // the two entries differ in their times, to the second
  stopped.shred({.dataset = "icu"}, "again", {"d"});
  const auto facts = nlohmann::json::parse(stopped.certificate({.dataset = "icu"}));
  EXPECT_EQ(facts["reason"], "again");
  EXPECT_EQ(facts["files"], nlohmann::json({"d"}));
  EXPECT_EQ(facts["keys"].size(), 2u);
  EXPECT_EQ(facts["keys"][0]["state"], "deactivated");
  EXPECT_EQ(facts["keys"][1]["state"], "active");
  EXPECT_EQ(facts["log"]["sequence"], stopped.verify().sequence());
  ::setenv("HUSHGRAD_STATE_DIR", state.c_str(), 1);
}

// A key that is revoked while a use of it waits for its turn to be counted seals nothing.
TEST_F(KeyringLife, ARevocationOvertakesAUseThatWaits) {
  keyring.create_key("icu", {.usage_limit = 9});
  fs::copy_file(folder / "k", folder / "active");
  keyring.revoke({.dataset = "icu"}, "stolen");
  fs::rename(folder / "k", folder / "revoked");
  fs::rename(folder / "active", folder / "k");
  for (const char* name : {"k", "revoked"}) ::chmod((folder / name).c_str(), 0600);
  const TemporaryFolder elsewhere;
  const std::string state = ::getenv("HUSHGRAD_STATE_DIR") ? ::getenv("HUSHGRAD_STATE_DIR") : "";
  ::setenv("HUSHGRAD_STATE_DIR", (elsewhere / "state").c_str(), 1);
  const Keyring waiting = Keyring::open(folder / "k");
  const int lock = ::open((folder / "k").c_str(), O_RDONLY | O_CLOEXEC);
  ASSERT_EQ(::flock(lock, LOCK_EX), 0);
  std::string answer = "sealed";
  std::thread use([&] {
    try {
      waiting.wrap("icu", kDataKey);
    } catch (const KeyError& error) {
      answer = error.what();
    }
  });
  ::usleep(200'000);  // where the thread was not yet there, it sees the revocation at once
  fs::rename(folder / "revoked", folder / "k");
  ::close(lock);
  use.join();
  EXPECT_NE(answer.find("Expected an active key"), answer.npos) << answer;
  ::setenv("HUSHGRAD_STATE_DIR", state.c_str(), 1);
}

// By somebody who may write the folder and knows neither passphrase nor root: what runs does not seal under their keys.
TEST_F(KeyringLife, AnotherKeyringInItsPlaceIsRefused) {
  const Bytes passphrase = bytes_of("correct horse");
  Keyring locked = Keyring::create(folder / "locked", {.passphrase = passphrase});
  locked.create_key("icu");
  keyring.create_key("icu");
  const std::string first = "hushgrad keyring 1\n00112233445566778899aabbccddeeff 2026-01-31T12:00:00Z active " +
                            std::string(64, '0') + " icu\n";
  const std::string version_1 = first + "sha384 " + to_hex(sha384(text_bytes(first))) + "\n";
  for (const std::string& forged : {text_of(folder / "k"), version_1}) {
    fs::remove(folder / "locked");
    std::ofstream(folder / "locked", std::ios::binary) << forged;
    ::chmod((folder / "locked").c_str(), 0600);
    expect_error<KeyError>([&] { locked.wrap("icu", kDataKey); }, "another in its place");
    expect_error<KeyError>([&] { locked.rotate_key("icu"); }, "another in its place");
    EXPECT_THROW(Keyring::open(folder / "locked", {.passphrase = passphrase}), KeyError);
  }
}

TEST_F(KeyringLife, WhatWasSeenNeverGetsOlder) {
  const std::string id = random_id();  // the folder of state outlives a run of the tests
  remember_keyring(id, {7, 1000, 9, "seven"});
  remember_keyring(id, {6, 2000, 8, "six"});
  EXPECT_EQ(seen_keyring(id), (SeenKeyring{7, 2000, 9, "seven"}));
  std::vector<std::thread> threads;
  for (std::uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (std::uint64_t i = 0; i < 50; ++i) {
        remember_keyring(id, {10 + 4 * i + t, 3000, 1, "x"});
        if (const auto seen = seen_keyring(id); !seen || seen->generation < 10 + 4 * i + t) ADD_FAILURE();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(seen_keyring(id)->generation, 10u + 4 * 49 + 3);
}

TEST_F(KeyringLife, TheLogIsAppendedToNoOtherFile) {
  const SigningKey signer = SigningKey::generate();
  KeyLog log = KeyLog::read(folder / "log", signer.public_key());
  log.append({.action = "init"}, signer);
  const std::string whole = text_of(folder / "log");
  std::ofstream(folder / "victim") << "precious, and longer than the log was, by as much as it takes";
  ::chmod((folder / "victim").c_str(), 0644);
  fs::remove(folder / "log");
  fs::create_hard_link(folder / "victim", folder / "log");
  EXPECT_THROW(log.append({.action = "create"}, signer), KeyError);
  EXPECT_TRUE(text_of(folder / "victim").starts_with("precious"));
  fs::remove(folder / "log");
  ASSERT_EQ(::mkfifo((folder / "log").c_str(), 0600), 0);
  EXPECT_THROW(log.append({.action = "create"}, signer), Error);  // and nobody waits for a reader
}

struct People {
  std::shared_ptr<const SigningKey> cleo = std::make_shared<SigningKey>(SigningKey::generate());
  std::shared_ptr<const SigningKey> ada = std::make_shared<SigningKey>(SigningKey::generate());
  std::shared_ptr<const SigningKey> ben = std::make_shared<SigningKey>(SigningKey::generate());
};

class DualControl : public KeyringLife {
 protected:
  People people;
  DualControl() {
    keyring.add_identity("Cleo", "custodian", people.cleo->public_key());
    keyring = Keyring::open(folder / "k", {.identity = people.cleo});
    keyring.add_identity("Ada", "approver", people.ada->public_key());
    keyring.add_identity("Ben", "approver", people.ben->public_key());
    keyring.create_key("icu", {.quorum = 2});
  }
  Authorization approved(const std::string& action, std::map<std::string, std::string> scope = {{"dataset", "icu"}}) {
    Operation operation = keyring.request(action, scope, "retention ended", 600);
    return {operation, {approve(operation, *people.ada), approve(operation, *people.ben)}};
  }
};

TEST_F(DualControl, KOfNApproveExactlyThis) {
  const auto shred = [&](const Authorization& authorization) {
    return denied([&] { keyring.shred({.dataset = "icu"}, "retention ended", {}, authorization); });
  };
  EXPECT_EQ(shred({}), "too_few");
  Authorization one = approved("shred");
  one.approvals.pop_back();
  EXPECT_EQ(shred(one), "too_few");
  EXPECT_EQ(shred(approved("resume")), "altered");
  EXPECT_EQ(shred(approved("shred", {{"tenant", "default"}})), "altered");
  Authorization self = approved("shred");
  self.approvals[0] = approve(*self.operation, *people.cleo);
  EXPECT_EQ(shred(self), "self_approval");
  Authorization late = approved("shred");
  late.operation->expires = late.operation->created - 1 + 1;
  EXPECT_THROW(shred(late), InvalidArgument);
  EXPECT_EQ(shred(approved("shred")), "allowed");
  EXPECT_FALSE(keyring.has_key("icu"));

  int refusals = 0;
  const KeyLog log = keyring.verify();
  for (const KeyLogEntry& entry : log.entries()) refusals += entry.action == "denied";
  EXPECT_EQ(refusals, 5);
  EXPECT_EQ(log.entries().back().details.at("approvers").size(), 65u);
}

TEST_F(DualControl, AnApprovalServesOnce) {
  keyring.suspend({.dataset = "icu"}, "audit");
  const Authorization once = approved("resume");
  keyring.resume({.dataset = "icu"}, "audit over", once);
  keyring.suspend({.dataset = "icu"}, "audit");
  EXPECT_EQ(denied([&] { keyring.resume({.dataset = "icu"}, "audit over", once); }), "replayed");
}

TEST_F(DualControl, WhoLeftApprovesNoMore) {
  auto eve = std::make_shared<SigningKey>(SigningKey::generate());
  EXPECT_EQ(denied([&] { keyring.add_identity("Eve", "approver", eve->public_key()); }), "too_few");
  const std::map<std::string, std::string> scope{{"identity", eve->public_key().id()}, {"name", "Eve"}, {"role", "approver"}};
  keyring.add_identity("Eve", "approver", eve->public_key(), approved("add-identity", scope));
  const Authorization pending = approved("shred");
  keyring.remove_identity(people.ben->public_key().id(), "left",
                          approved("remove-identity", {{"identity", people.ben->public_key().id()}}));
  EXPECT_EQ(denied([&] { keyring.shred({.dataset = "icu"}, "retention ended", {}, pending); }), "unknown_approver");
  EXPECT_THROW(keyring.remove_identity(people.ada->public_key().id(), "left", approved("remove-identity")), InvalidState);
  const std::string cleo = people.cleo->public_key().id();  // without a custodian everybody could change keys
  EXPECT_THROW(keyring.remove_identity(cleo, "left", approved("remove-identity", {{"identity", cleo}})), InvalidState);
}

TEST_F(DualControl, DutiesAreSeparate) {
  EXPECT_THROW(keyring.add_identity("Cleo", "approver", people.cleo->public_key()), InvalidArgument);
  Keyring anonymous = Keyring::open(folder / "k");
  EXPECT_EQ(denied([&] { anonymous.create_key("other"); }), "unknown_actor");
  Keyring approver = Keyring::open(folder / "k", {.identity = people.ada});
  EXPECT_EQ(denied([&] { approver.rotate_key("icu"); }), "unknown_actor");
  EXPECT_NO_THROW(anonymous.wrap("icu", kDataKey));
  EXPECT_THROW(keyring.create_key("big", {.quorum = 3}), InvalidArgument);
}

TEST_F(DualControl, TheQuorumIsThatOfTheCreation) {
  keyring.create_key("icu", {.quorum = 0});
  keyring.rotate_key("icu");
  EXPECT_EQ(denied([&] { keyring.shred({.dataset = "icu"}, "r", {}); }), "too_few");
  EXPECT_EQ(denied([&] { keyring.shred({.tenant = "default"}, "r", {}); }), "too_few");
  EXPECT_EQ(denied([&] { keyring.shred({.key_id = keyring.list()[1].id}, "r", {}); }), "too_few");
}

TEST_F(DualControl, BreakingGlassIsLoggedFirstAndEnds) {
  const WrappedKey wrapped = keyring.wrap("icu", kDataKey);
  EXPECT_THROW(keyring.break_glass({.dataset = "icu"}, "emergency", 5, approved("break-glass")), KeyError);
  keyring.revoke({.dataset = "icu"}, "stolen");
  EXPECT_EQ(denied([&] { keyring.break_glass({.dataset = "icu"}, "emergency", 5); }), "too_few");
  EXPECT_THROW(keyring.break_glass({.dataset = "icu"}, "emergency", 61), InvalidArgument);
  const std::map<std::string, std::string> five{{"dataset", "icu"}, {"minutes", "5"}};
  EXPECT_EQ(denied([&] { keyring.break_glass({.dataset = "icu"}, "emergency", 6, approved("break-glass", five)); }), "altered");

  // The disk is full: no entry, no glass.
  const Authorization authorization = approved("break-glass", five);
  SyscallFault::current().arm(SyscallFault::Action::fail, 0, ENOSPC);
  EXPECT_THROW(keyring.break_glass({.dataset = "icu"}, "emergency", 5, authorization), IoError);
  SyscallFault::current().disarm();
  EXPECT_THROW(keyring.unwrap(wrapped), KeyError);

  keyring.break_glass({.dataset = "icu"}, "emergency", 5, authorization);
  EXPECT_NO_THROW(keyring.unwrap(wrapped));
  const KeyLog log = keyring.verify();
  EXPECT_EQ(log.entries().back().action, "open-under-break-glass");
  EXPECT_EQ(log.entries()[log.entries().size() - 2].action, "break-glass");
  SyscallFault::current().arm(SyscallFault::Action::fail, 0, ENOSPC);
  EXPECT_THROW(keyring.unwrap(wrapped), IoError);
  SyscallFault::current().disarm();

  const std::string id = nlohmann::json::parse(keyring.describe())["id"];
  SeenKeyring seen = *seen_keyring(id);
  seen.time = utc_now() + 5 * 60;
  remember_keyring(id, seen);
  EXPECT_THROW(keyring.unwrap(wrapped), KeyError);
}

TEST_F(KeyringLife, AfterBrokenGlassTheKeySealsNothingUntilItIsRotated) {
  keyring.create_key("icu");
  keyring.suspend({.dataset = "icu"}, "audit");
  keyring.break_glass({.dataset = "icu"}, "emergency", 5);
  keyring.resume({.dataset = "icu"}, "audit over");
  expect_error<KeyError>([&] { keyring.wrap("icu", kDataKey); }, "rotation is due");
  keyring.rotate_key("icu");
  EXPECT_NO_THROW(keyring.wrap("icu", kDataKey));
}

TEST_F(KeyringLife, ALogThatWasCutEditedOrErasedStopsEveryChange) {
  keyring.create_key("a");
  keyring.create_key("b");
  const std::string good = text_of(folder / "k.log");
  const auto with_log = [&](const std::string& text) {
    std::ofstream(folder / "k.log", std::ios::binary) << text;
    EXPECT_THROW(keyring.verify(), KeyError);
    EXPECT_THROW(keyring.create_key("c"), KeyError);
    EXPECT_NO_THROW(keyring.wrap("a", kDataKey));
  };
  const auto lines = [&] {
    std::vector<std::string> found;
    std::istringstream in(good);
    for (std::string line; std::getline(in, line);) found.push_back(line + "\n");
    return found;
  }();
  ASSERT_EQ(lines.size(), 3u);
  with_log(lines[0] + lines[1]);
  with_log("");
  with_log(lines[1] + lines[2]);
  with_log(lines[0] + lines[2] + lines[1]);
  with_log(lines[0] + lines[1] + lines[1] + lines[2]);
  std::string edited = good;
  edited.replace(edited.find("\"dataset\":\"a\""), 13, "\"dataset\":\"z\"");
  with_log(edited);
  // An entry that follows in order, under a signature of another one.
  auto forged = nlohmann::json::parse(lines[2]);
  forged["sequence"] = 4;
  forged["previous"] = to_hex(sha384(text_bytes(lines[2].substr(0, lines[2].size() - 1))));
  with_log(good + forged.dump() + "\n");
  fs::remove(folder / "k.log");
  EXPECT_THROW(keyring.create_key("c"), KeyError);
  std::ofstream(folder / "k.log", std::ios::binary) << good << "{\"half\":";
  ::chmod((folder / "k.log").c_str(), 0600);
  EXPECT_NO_THROW(keyring.create_key("c"));
  EXPECT_EQ(keyring.verify().sequence(), 4u);
}

TEST_F(KeyringLife, AnEntryWithoutItsChangeIsNoChange) {
  keyring.create_key("a");
  fs::copy_file(folder / "k", folder / "before");
  keyring.create_key("b");
  // As if killed between the log and the keyring; and nothing was seen.
  const TemporaryFolder elsewhere;
  const std::string state = ::getenv("HUSHGRAD_STATE_DIR") ? ::getenv("HUSHGRAD_STATE_DIR") : "";
  ::setenv("HUSHGRAD_STATE_DIR", (elsewhere / "state").c_str(), 1);
  fs::copy_file(folder / "before", folder / "k", fs::copy_options::overwrite_existing);
  ::chmod((folder / "k").c_str(), 0600);
  Keyring killed = Keyring::open(folder / "k");
  EXPECT_FALSE(killed.has_key("b"));
  EXPECT_EQ(killed.verify().sequence(), 3u);
  killed.create_key("b");
  EXPECT_EQ(killed.verify().sequence(), 4u);
  ::setenv("HUSHGRAD_STATE_DIR", state.c_str(), 1);
}

TEST_F(KeyringLife, AForgedKeyringDoesNotOpen) {
  keyring.create_key("icu");
  keyring.revoke({.dataset = "icu"}, "stolen");
  std::string text = text_of(folder / "k");
  const auto put = [&](const std::string& forged) {
    std::ofstream(folder / "k", std::ios::binary) << forged;
    EXPECT_THROW(keyring.list(), KeyError);
    EXPECT_THROW(Keyring::open(folder / "k"), KeyError);
  };
  for (std::string from = "compromised", to = "deactivated"; text.find(from) != text.npos;) {
    text.replace(text.find(from), from.size(), to);
  }
  put(text);
}

TEST_F(KeyringLife, DescriptionAndLogHoldNoSecrets) {
  keyring.create_key("icu");
  const std::string text = text_of(folder / "k");
  const std::string root = text.substr(text.find("\nroot ") + 6, 64);
  for (const std::string& shown : {keyring.describe(), text_of(folder / "k.log"), keyring.name()}) {
    EXPECT_EQ(shown.find(root), shown.npos);
    EXPECT_EQ(shown.find("wrapped"), shown.npos);
  }
}

}  // namespace
}  // namespace hushgrad
