// PKCS#11 against SoftHSM 2: the contract of all providers, and a shim that breaks what it passes on.
#include "dpcore/keys/pkcs11.h"

#include <chrono>
#include <filesystem>
#include <fstream>

#include <sys/wait.h>
#include <unistd.h>

#include "dpcore/keys/joint_provider.h"
#include "dpcore/keys/key_provider_contract.h"

namespace hushgrad::seal_testing {
namespace {

namespace fs = std::filesystem;

constexpr const char* kPin = "4711-pin";
constexpr const char* kToken = "hushgrad test";

std::string softhsm() {
  for (const char* path : {"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
                           "/usr/lib64/softhsm/libsofthsm2.so", "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so"}) {
    if (fs::exists(path)) return path;
  }
  return "";
}

std::string unavailable_softhsm() {
  const bool tool = std::system("command -v softhsm2-util > /dev/null 2>&1") == 0;
  return tool && !softhsm().empty() ? "" : "SoftHSM 2 is not installed (apt install softhsm2)";
}

SecretBytes secret(std::string_view text) {
  SecretBytes bytes(text.size());
  const auto view = text_bytes(text);
  std::copy(view.begin(), view.end(), bytes.bytes().begin());
  return bytes;
}

// A token of its own, as the environment of helpers names it.
struct SoftHsm {
  TemporaryFolder folder;
  std::string module = softhsm();

  SoftHsm() {
    fs::create_directory(folder / "tokens");
    std::ofstream(folder / "conf") << "directories.tokendir = " << folder / "tokens" << "\nobjectstore.backend = file\n";
    ::setenv("SOFTHSM2_CONF", (folder / "conf").c_str(), 1);
    const std::string command = std::string("softhsm2-util --init-token --free --label '") + kToken + "' --so-pin 12345678 "
                                "--pin " + kPin + " > /dev/null";
    EXPECT_EQ(std::system(command.c_str()), 0);
  }
  std::unique_ptr<Pkcs11> token(int seconds = 30) const {
    return std::make_unique<Pkcs11>(module, kToken, secret(kPin), seconds);
  }
};

struct SoftHsmMaker : SoftHsm {
  static std::string unavailable() { return unavailable_softhsm(); }
  SoftHsmMaker() {
    token()->create_key("a");
    token()->create_key("b", "other");
  }
  std::unique_ptr<KeyProvider> open() { return token(); }
  void suspend(const std::string& dataset) { token()->suspend(dataset); }
  void destroy(const std::string& dataset) { token()->destroy(dataset); }
};

INSTANTIATE_TYPED_TEST_SUITE_P(SoftHsm, KeyProviderContract, SoftHsmMaker);

// A keyring and a token together; the token suspends, the keyring destroys.
struct JointTokenMaker : SoftHsmMaker {
  Keyring keyring = Keyring::create(folder / "keyring");
  std::unique_ptr<Pkcs11> held = token();
  JointTokenMaker() {
    keyring.create_key("a");
    keyring.create_key("b", {.tenant = "other"});
  }
  std::unique_ptr<KeyProvider> open() { return std::make_unique<JointProvider>(keyring, *held); }
  void destroy(const std::string& dataset) { keyring.shred({.dataset = dataset}, "test", {}); }
};

INSTANTIATE_TYPED_TEST_SUITE_P(KeyringAndSoftHsm, KeyProviderContract, JointTokenMaker);

class Pkcs11Test : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string why = unavailable_softhsm(); !why.empty()) GTEST_SKIP() << "SKIPPED: " << why;
    hsm = std::make_unique<SoftHsm>();
    ::setenv("HUSHGRAD_SHIM_MODULE", hsm->module.c_str(), 1);
    ::setenv("HUSHGRAD_SHIM_FAULT", (hsm->folder / "fault").c_str(), 1);
    hsm->module = HUSHGRAD_PKCS11_SHIM;
  }
  void inject(const std::string& word) { std::ofstream(hsm->folder / "fault") << word << "\n"; }
  std::unique_ptr<SoftHsm> hsm;
  const Bytes data_key = Bytes(32, std::byte{5});
};

TEST_F(Pkcs11Test, KeysLiveOnTheTokenThroughTheirStates) {
  const auto token = hsm->token();
  token->create_key("icu", "clinic");
  token->create_key("icu", "clinic");
  ASSERT_EQ(token->list().size(), 1u);
  EXPECT_EQ(token->list()[0].tenant, "clinic");
  const WrappedKey wrapped = token->wrap("icu", data_key);
  token->rotate_key("icu");
  EXPECT_EQ(token->key(wrapped.key_id).state, "deactivated");
  EXPECT_NE(token->wrap("icu", data_key).key_id, wrapped.key_id);
  EXPECT_EQ(to_hex(token->unwrap(wrapped).bytes()), to_hex(data_key));
  token->suspend("icu");
  EXPECT_THROW(token->unwrap(wrapped), KeyError);
  token->resume("icu");
  EXPECT_NO_THROW(token->unwrap(wrapped));
  EXPECT_NO_THROW(token->wrap("icu", data_key));
  token->revoke("icu");
  EXPECT_THROW(token->unwrap(wrapped), KeyError);
  EXPECT_THROW(token->resume("icu"), KeyError);
  token->destroy("icu");
  EXPECT_TRUE(token->list().empty());
  EXPECT_THROW(token->create_key("a\nb"), InvalidArgument);
}

TEST_F(Pkcs11Test, EveryFaultOfTheTokenFailsClosedAndPasses) {
  const auto token = hsm->token();
  token->create_key("icu");
  const WrappedKey wrapped = token->wrap("icu", data_key);
  for (const char* word : {"device_error", "removed", "session_invalid", "not_logged_in", "general_error", "crash",
                           "extractable", "not_sensitive", "decrypts", "short_key"}) {
    SCOPED_TRACE(word);
    inject(word);
    const std::string text = thrown<KeyError>([&] { token->unwrap(wrapped); });
    EXPECT_TRUE(text.starts_with("[pkcs11] ")) << text;
    EXPECT_THROW(token->wrap("icu", data_key), KeyError);
    inject("");
    EXPECT_EQ(to_hex(token->unwrap(wrapped).bytes()), to_hex(data_key));
  }
  inject("short");
  expect_error<KeyError>([&] { token->wrap("icu", data_key); }, "another length");
  inject("short_value");
  expect_error<KeyError>([&] { token->unwrap(wrapped); }, "another length");
}

TEST_F(Pkcs11Test, AnInterruptedRotationLeavesAKeyThatSeals) {
  const auto token = hsm->token();
  token->create_key("icu", "clinic");
  const WrappedKey wrapped = token->wrap("icu", data_key);
  inject("update_fails");
  EXPECT_THROW(token->rotate_key("icu"), KeyError);
  inject("");
  EXPECT_NO_THROW(token->unwrap(token->wrap("icu", data_key)));
  EXPECT_NO_THROW(token->unwrap(wrapped));
  token->rotate_key("icu");
  int active = 0;
  for (const KeyInfo& key : token->list()) {
    active += key.state == "active";
    EXPECT_EQ(key.tenant, "clinic");
  }
  EXPECT_EQ(active, 1);
}

TEST_F(Pkcs11Test, AHungTokenHangsNobody) {
  const auto token = hsm->token(3);
  token->create_key("icu");
  const WrappedKey wrapped = token->wrap("icu", data_key);
  inject("hang");
  expect_error<KeyError>([&] { token->unwrap(wrapped); }, "within 3 s");
  inject("");
  EXPECT_NO_THROW(token->unwrap(wrapped));
}

TEST_F(Pkcs11Test, ARefusedPinIsNotTriedAgain) {
  inject("pin_locked");
  const auto token = hsm->token();
  expect_error<KeyError>([&] { token->list(); }, "locked");
  inject("");
  expect_error<KeyError>([&] { token->list(); }, "refused");
  Pkcs11 wrong(hsm->module, kToken, secret("0000"));
  const std::string text = thrown<KeyError>([&] { wrong.list(); });
  EXPECT_NE(text.find("PIN"), text.npos);
  EXPECT_EQ(text.find("0000"), text.npos);
  for (int i = 0; i < 5; ++i) EXPECT_THROW(wrong.list(), KeyError);
  EXPECT_NO_THROW(hsm->token()->list());
}

TEST_F(Pkcs11Test, MissingModulesAndTokensAreErrors) {
  EXPECT_THROW(Pkcs11("/nowhere.so", kToken, secret(kPin)).list(), KeyError);
  expect_error<KeyError>([&] { Pkcs11(hsm->module, "other", secret(kPin)).list(); }, "labelled other");
  EXPECT_THROW(Pkcs11(hsm->module, "", secret(kPin)), InvalidArgument);
  EXPECT_THROW(Pkcs11(hsm->module, kToken, secret(kPin), 0), InvalidArgument);
}

TEST_F(Pkcs11Test, AForkedChildHasAHelperOfItsOwn) {
  const auto token = hsm->token();
  token->create_key("icu");
  const WrappedKey wrapped = token->wrap("icu", data_key);
  const pid_t child = ::fork();
  if (child == 0) {
    try {
      for (int i = 0; i < 5; ++i) token->unwrap(wrapped);
      ::_exit(0);
    } catch (...) {
      ::_exit(1);
    }
  }
  for (int i = 0; i < 5; ++i) EXPECT_NO_THROW(token->unwrap(wrapped));
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_NO_THROW(token->unwrap(wrapped));
}

// Neither argv nor the environment of the helper holds the PIN.
TEST_F(Pkcs11Test, ThePinIsNotToBeSeen) {
  const auto token = hsm->token();
  token->list();
  int helpers = 0;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != name.npos) continue;
    std::ifstream file(entry.path() / "cmdline");
    const std::string command{std::istreambuf_iterator<char>(file), {}};
    if (command.find("hushgrad_pkcs11_helper") == command.npos) continue;
    ++helpers;
    EXPECT_EQ(command.find(kPin), command.npos);
    std::ifstream environment(entry.path() / "environ");
    const std::string text{std::istreambuf_iterator<char>(environment), {}};
    EXPECT_EQ(text.find(kPin), text.npos);
  }
  EXPECT_GE(helpers, 1);
}

}  // namespace
}  // namespace hushgrad::seal_testing
