#include "dpcore/keys/signing.h"

#include <set>

#include <sys/stat.h>

#include "dpcore/error.h"
#include "dpcore/keys/kdf.h"
#include "dpcore/keys/seal_testing.h"

namespace hushgrad {
namespace {

using namespace seal_testing;

constexpr SignatureAlgorithm kBoth[] = {SignatureAlgorithm::ecdsa_p384_sha384, SignatureAlgorithm::ed25519};

// Every published case: keys that are no keys of ours are refused, signatures verify exactly where they should.
void agree_with_wycheproof(const std::string& file, int expected_cases) {
  int run = 0;
  const auto published = load_vectors(file);
  for (const auto& group : published["testGroups"]) {
    const PublicKey key = PublicKey::from_pem(group["publicKeyPem"]);
    EXPECT_EQ(PublicKey::from_pem(key.pem()), key);
    EXPECT_EQ(key.id(), to_hex(sha384(hex(group["publicKeyDer"]))).substr(0, 32));
    for (const auto& test : group["tests"]) {
      SCOPED_TRACE(test["tcId"].get<int>());
      ASSERT_NE(test["result"], "acceptable");
      EXPECT_EQ(verify_without_context(key, hex(test["msg"]), hex(test["sig"])), test["result"] == "valid");
      ++run;
    }
  }
  EXPECT_EQ(run, expected_cases);
}

TEST(Signing, EcdsaAgreesWithWycheproof) {
  SKIP_WITHOUT_VECTORS();
  agree_with_wycheproof("wycheproof/ecdsa_secp384r1_sha384_test.json", 504);
}

TEST(Signing, Ed25519AgreesWithWycheproof) {
  SKIP_WITHOUT_VECTORS();
  agree_with_wycheproof("wycheproof/ed25519_test.json", 151);
}

TEST(Signing, VerifiesOnlyWhatWasSigned) {
  for (const auto algorithm : kBoth) {
    const SigningKey key = SigningKey::generate(algorithm);
    const PublicKey& known = key.public_key();
    const Bytes text = bytes_of("spend 3 epsilon");
    const Bytes signature = key.sign("approval", text);
    EXPECT_TRUE(known.verify("approval", text, signature));
    EXPECT_FALSE(known.verify("manifest", text, signature));
    EXPECT_FALSE(known.verify("approval", bytes_of("spend 4 epsilon"), signature));
    EXPECT_FALSE(verify_without_context(known, text, signature));
    EXPECT_FALSE(SigningKey::generate(algorithm).public_key().verify("approval", text, signature));
    for (std::size_t bit = 0; bit < 8 * signature.size(); ++bit) {
      Bytes altered = signature;
      altered[bit / 8] ^= std::byte{1} << (bit % 8);
      EXPECT_FALSE(known.verify("approval", text, altered)) << bit;
    }
    EXPECT_FALSE(known.verify("approval", text, std::span(signature).first(signature.size() - 1)));
    EXPECT_FALSE(known.verify("approval", text, {}));
    EXPECT_TRUE(known.verify("approval", {}, key.sign("approval", {})));
  }
}

// A message that begins where another context ends must not make the two equal.
TEST(Signing, ContextAndMessageDoNotRunIntoEachOther) {
  const SigningKey key = SigningKey::generate();
  EXPECT_FALSE(key.public_key().verify("a", bytes_of("bc"), key.sign("ab", bytes_of("c"))));
  for (const std::string& bad : {std::string(), std::string("A"), std::string("a\0b", 3), std::string(65, 'a')}) {
    EXPECT_THROW(key.sign(bad, {}), InvalidArgument) << bad;
    EXPECT_THROW(key.public_key().verify(bad, {}, {}), InvalidArgument) << bad;
  }
}

TEST(Signing, IdIsThatOfThePublicKeyAndNewEachTime) {
  std::set<std::string> ids;
  for (const auto algorithm : kBoth) {
    for (int i = 0; i < 3; ++i) {
      const SigningKey key = SigningKey::generate(algorithm);
      EXPECT_TRUE(is_hex(key.public_key().id(), 16));
      EXPECT_EQ(PublicKey::from_pem(key.public_key().pem()).id(), key.public_key().id());
      ids.insert(key.public_key().id());
    }
  }
  EXPECT_EQ(ids.size(), 6u);
}

TEST(Signing, KeysComeBackFromFiles) {
  const Bytes passphrase = bytes_of("correct horse battery staple");
  for (const auto algorithm : kBoth) {
    const TemporaryFolder folder;
    const SigningKey key = SigningKey::generate(algorithm);
    key.save(folder / "plain");
    key.save(folder / "locked", passphrase);
    struct stat status;
    ASSERT_EQ(::stat((folder / "locked").c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777, 0600u);
    EXPECT_THROW(key.save(folder / "plain"), IoError);
    for (const SigningKey& loaded : {SigningKey::load(folder / "plain"), SigningKey::load(folder / "locked", passphrase),
                                     SigningKey::from_pkcs8(key.pkcs8().bytes())}) {
      EXPECT_EQ(loaded.public_key(), key.public_key());
      EXPECT_TRUE(key.public_key().verify("x", passphrase, loaded.sign("x", passphrase)));
    }
    expect_error<KeyError>([&] { SigningKey::load(folder / "locked", bytes_of("correct horse")); }, "another passphrase");
    expect_error<KeyError>([&] { SigningKey::load(folder / "locked"); }, "no passphrase");
    expect_error<KeyError>([&] { SigningKey::load(folder / "plain", passphrase); }, "has none");
    EXPECT_THROW(SigningKey::load(folder / "missing"), KeyError);
    EXPECT_THROW(key.save(folder / "empty", Bytes()), InvalidArgument);
    ::chmod((folder / "plain").c_str(), 0644);
    expect_error<KeyError>([&] { SigningKey::load(folder / "plain"); }, "0600");
    const std::string locked(reinterpret_cast<const char*>(read_file(folder / "locked").data()), 40);
    EXPECT_NE(locked.find("ENCRYPTED"), locked.npos);
  }
}

TEST(Signing, AlteredFilesAreRefused) {
  const TemporaryFolder folder;
  SigningKey::generate().save(folder / "key");
  const Bytes good = read_file(folder / "key");
  for (std::size_t size = 0; size < good.size() - 2; size += 7) {
    write_file(folder / "cut", std::span(good).first(size));
    ::chmod((folder / "cut").c_str(), 0600);
    EXPECT_THROW(SigningKey::load(folder / "cut"), KeyError) << size;
  }
}

TEST(Signing, OtherPublicKeysAreRefused) {
  const std::string good = SigningKey::generate().public_key().pem();
  EXPECT_NO_THROW(PublicKey::from_pem(good + "\n"));
  std::string off_curve = good;
  off_curve[good.size() - 40] = off_curve[good.size() - 40] == 'A' ? 'B' : 'A';
  for (const std::string& bad :
       {std::string(), std::string("text"), off_curve, good + good, "text\n" + good, good.substr(0, good.size() - 30),
        // P-256, from RFC 7517 appendix A.1 by way of openssl pkey -pubin
        std::string("-----BEGIN PUBLIC KEY-----\n"
                    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEMKBCTNIcKUSDii11ySs3526iDZ8A\n"
                    "iTo7Tu6KPAqv7D7gS2XpJFbZiItSs3m9+9Ue6GnvHw/GW2ZZaVtszggXIw==\n"
                    "-----END PUBLIC KEY-----\n")}) {
    EXPECT_THROW(PublicKey::from_pem(bad), InvalidArgument) << bad;
  }
}

TEST(Signing, AlgorithmsHaveNames) {
  for (const auto algorithm : kBoth) EXPECT_EQ(signature_algorithm(to_string(algorithm)), algorithm);
  EXPECT_THROW(signature_algorithm("rsa"), InvalidArgument);
}

}  // namespace
}  // namespace hushgrad
