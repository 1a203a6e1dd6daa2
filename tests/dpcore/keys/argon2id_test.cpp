#include "dpcore/keys/argon2id.h"

#include <algorithm>

#include "dpcore/error.h"
#include "dpcore/keys/keyring.h"
#include "dpcore/keys/keyring_file.h"
#include "dpcore/keys/root_key.h"
#include "dpcore/keys/seal_testing.h"

namespace hushgrad {
namespace {

using namespace seal_testing;

std::string derived(const Bytes& password, const Bytes& salt, const Argon2Cost& cost, const Bytes& secret = {},
                    const Bytes& associated_data = {}) {
  Bytes out(32);
  argon2id(password, salt, cost, out, secret, associated_data);
  return to_hex(out);
}

TEST(Argon2id, AgreesWithRfc9106) {  // section 5.3
  EXPECT_EQ(derived(Bytes(32, std::byte{1}), Bytes(16, std::byte{2}), {32, 3, 4}, Bytes(8, std::byte{3}), Bytes(12, std::byte{4})),
            "0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659");
}

TEST(Argon2id, RefusesWhatItDoesNotHave) {
  const Bytes password(8, std::byte{1}), salt(16, std::byte{2});
  EXPECT_THROW(derived(password, Bytes(7), {32, 3, 4}), InvalidArgument);
  EXPECT_THROW(derived(password, salt, {8, 3, 4}), InvalidArgument);
  EXPECT_THROW(derived(password, salt, {32, 0, 4}), InvalidArgument);
  EXPECT_THROW(derived(password, salt, {32, 3, 0}), InvalidArgument);
  EXPECT_THROW(derived(password, salt, {std::uint64_t{1} << 32, 3, 4}), InvalidArgument);
}

TEST(Argon2id, MemoryThatIsNotThereIsAnError) {
  if (sizeof(void*) < 8) GTEST_SKIP() << "SKIPPED: needs more address space than memory";
  EXPECT_THROW(derived(Bytes(8), Bytes(16), {0xFFFFFFFF, 1, 1}), IoError);
}

// A keyring under a passphrase whose protection says `cost`, as an attacker would write it.
std::string with_protection(const KeyringModel& model, KeyringProtection protection) {
  KeyringModel changed = model;
  changed.protection = std::move(protection);
  return to_text(changed);
}

class PassphraseKeyring : public ::testing::Test {
 protected:
  PassphraseKeyring() {
    Keyring keyring = Keyring::create(path, access);
    keyring.create_key("ward");
    model = read_keyring(path, opened).model;
  }
  bool opens() const {
    const Keyring keyring = Keyring::open(path, access);
    return keyring.unwrap(keyring.wrap("ward", data_key)).size() == data_key.size();
  }
  const Bytes data_key = Bytes(32, std::byte{7});
  const Bytes passphrase = bytes_of("correct horse");
  const KeyringAccess access{.passphrase = std::span<const std::byte>(passphrase)};
  const ProtectionKey opened = [this](const KeyringProtection& p) { return protection_key(p, passphrase, false); };
  TemporaryFolder folder;
  const std::string path = folder / "keyring";
  KeyringModel model;
};

TEST_F(PassphraseKeyring, SaysItsCostsAndOpensWithThePassphraseOnly) {
  EXPECT_EQ(model.protection.kdf, "argon2id");
  EXPECT_EQ(model.protection.cost, 65536u);
  EXPECT_EQ(model.protection.passes, 3u);
  EXPECT_EQ(model.protection.lanes, 4u);
  EXPECT_TRUE(opens());
  const Bytes wrong = bytes_of("correct horsf");
  EXPECT_THROW(Keyring::open(path, {.passphrase = std::span<const std::byte>(wrong)}), KeyError);
}

TEST_F(PassphraseKeyring, CostsOfAHostileFileAreRefusedBeforeTheyArePaid) {
  KeyringProtection p = model.protection;
  EXPECT_NO_THROW(keyring_model_from(with_protection(model, p)));
  for (const auto& [memory, passes, lanes] : {std::array<std::uint64_t, 3>{(1 << 21) + 1, 1, 4},  // memory
                                              {1 << 20, 9, 4},                                    // time
                                              {1 << 16, 65, 4},
                                              {1 << 16, 3, 17},                                   // threads
                                              {1 << 16, 0, 4},
                                              {1 << 16, 3, 0},
                                              {(1 << 14) - 1, 3, 4},                              // too cheap
                                              {1 << 16, UINT64_MAX, 4},                           // products that wrap
                                              {UINT64_MAX, UINT64_MAX, 4}}) {
    p.cost = memory, p.passes = passes, p.lanes = lanes;
    EXPECT_THROW(keyring_model_from(with_protection(model, p)), KeyError) << memory << " " << passes << " " << lanes;
  }
}

TEST_F(PassphraseKeyring, FieldsOfAnotherDerivationAreRefused) {
  const std::string text = to_text(model);
  const auto without = [&](const std::string& part) {
    std::string changed = text;
    changed.erase(changed.find(part), part.size());
    return changed;
  };
  EXPECT_THROW(keyring_model_from(without("\"passes\":3,")), KeyError);
  EXPECT_THROW(keyring_model_from(without("\"lanes\":4,")), KeyError);
  std::string scrypt = text;
  scrypt.replace(scrypt.find("argon2id"), 8, "scrypt");
  EXPECT_THROW(keyring_model_from(scrypt), KeyError);
}

TEST_F(PassphraseKeyring, KeyringsUnderScryptOpenAsBefore) {
  KeyringContents contents = read_keyring(path, opened);
  contents.model.protection = {"scrypt", 1 << 14, false, model.protection.salt};
  replace_keyring(path, keyring_text(contents.model, contents.root, opened).bytes(), false);
  EXPECT_EQ(read_keyring(path, opened).model.protection.kdf, "scrypt");
  EXPECT_TRUE(opens());
}

}  // namespace
}  // namespace hushgrad
