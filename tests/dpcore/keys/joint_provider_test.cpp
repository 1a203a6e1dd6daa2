// Keys that two places hold together, under the contract of all providers and by what is theirs alone.
#include "dpcore/keys/joint_provider.h"

#include "dpcore/keys/kdf.h"
#include "dpcore/keys/key_provider_contract.h"
#include "dpcore/keys/key_wrap.h"
#include "dpcore/keys/keyring.h"

namespace hushgrad::seal_testing {
namespace {

// Whether the keyring or the other place suspends and destroys.
template <bool kByKeyring>
struct JointMaker {
  TemporaryFolder folder;
  Keyring keyring = Keyring::create(folder / "keyring");
  Keyring place = Keyring::create(folder / "place");

  static std::string unavailable() { return ""; }
  JointMaker() {
    for (Keyring* both : {&keyring, &place}) {
      both->create_key("a");
      both->create_key("b");
    }
  }
  std::unique_ptr<KeyProvider> open() { return std::make_unique<JointProvider>(keyring, place); }
  Keyring& one() { return kByKeyring ? keyring : place; }
  void suspend(const std::string& dataset) { one().suspend({.dataset = dataset}, "test"); }
  void destroy(const std::string& dataset) { one().shred({.dataset = dataset}, "test", {}); }
};

INSTANTIATE_TYPED_TEST_SUITE_P(JointByKeyring, KeyProviderContract, JointMaker<true>);
INSTANTIATE_TYPED_TEST_SUITE_P(JointByPlace, KeyProviderContract, JointMaker<false>);

class Joint : public ::testing::Test {
 protected:
  JointMaker<true> maker;
  JointProvider joint{maker.keyring, maker.place};
  const Bytes data_key = Bytes(32, std::byte{7});
};

TEST_F(Joint, NeitherPlaceOpensAloneAndNoShareIsTheKey) {
  const WrappedKey wrapped = joint.wrap("a", data_key);
  EXPECT_THROW(maker.keyring.unwrap(wrapped), SealError);
  const std::span<const std::byte> bytes = wrapped.bytes;
  const std::size_t front = bytes.size() - 128;
  const auto share = [&](const Keyring& from, std::span<const std::byte> part) {
    return from.unwrap({from.list()[0].id, {part.begin(), part.end()}, 0});
  };
  const SecretBytes a = share(maker.place, bytes.first(front).last(40));
  const SecretBytes b = share(maker.keyring, bytes.subspan(front, 40));
  EXPECT_NE(to_hex(a.bytes()), to_hex(data_key));
  EXPECT_NE(to_hex(b.bytes()), to_hex(data_key));
  EXPECT_NE(to_hex(a.bytes()), to_hex(b.bytes()));
  // The documented derivation: both shares go into the key.
  const Sha384 both = hmac_sha384(a.bytes(), b.bytes());
  Bytes info = bytes_of("hushgrad joint 1"), covered(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(front));
  append(covered, text_bytes(wrapped.key_id));
  append(info, hmac_sha384(b.bytes(), covered));
  Bytes key(32);
  hkdf_expand_sha384(both, info, key);
  EXPECT_EQ(to_hex(aes256_kwp_unwrap(key, bytes.last(40)).value().bytes()), to_hex(data_key));

  const WrappedKey again = joint.wrap("a", data_key);
  EXPECT_NE(to_hex(share(maker.place, std::span(again.bytes).first(front).last(40)).bytes()), to_hex(a.bytes()));
}

TEST_F(Joint, SharesOfTwoKeysDoNotMix) {
  const WrappedKey one = joint.wrap("a", data_key), two = joint.wrap("a", Bytes(32, std::byte{8}));
  ASSERT_EQ(one.bytes.size(), two.bytes.size());
  for (std::size_t cut = 0; cut < one.bytes.size(); ++cut) {
    WrappedKey mixed = one;
    std::copy(two.bytes.begin() + static_cast<std::ptrdiff_t>(cut), two.bytes.end(),
              mixed.bytes.begin() + static_cast<std::ptrdiff_t>(cut));
    if (mixed.bytes == one.bytes || mixed.bytes == two.bytes) continue;
    EXPECT_THROW(joint.unwrap(mixed), SealError) << cut;
  }
}

TEST_F(Joint, QuorumsLimitsAndTheLogAreThoseOfTheKeyring) {
  const SigningKey ada = SigningKey::generate();
  maker.keyring.add_identity("Ada", "approver", ada.public_key());
  maker.place.create_key("c");
  maker.keyring.create_key("c", {.usage_limit = 2, .quorum = 1});
  const WrappedKey wrapped = joint.wrap("c", data_key);
  joint.wrap("c", data_key);
  expect_error<KeyError>([&] { joint.wrap("c", data_key); }, "limit");
  maker.keyring.suspend({.dataset = "c"}, "audit");
  EXPECT_THROW(joint.unwrap(wrapped), KeyError);
  EXPECT_THROW(maker.keyring.resume({.dataset = "c"}, "over"), Denied);
  EXPECT_NO_THROW(maker.place.wrap("c", data_key));  // whoever has the place alone has one share
  EXPECT_THROW(joint.unwrap(wrapped), KeyError);
  EXPECT_EQ(maker.keyring.verify().entries().back().action, "denied");
  EXPECT_EQ(joint.key(wrapped.key_id).state, "suspended");
}

TEST_F(Joint, RotationAtEitherPlaceKeepsOldFilesOpen) {
  const WrappedKey first = joint.wrap("a", data_key);
  maker.place.rotate_key("a");
  const WrappedKey second = joint.wrap("a", data_key);
  EXPECT_EQ(second.key_id, first.key_id);
  maker.keyring.rotate_key("a");
  for (const WrappedKey& wrapped : {first, second, joint.wrap("a", data_key)}) {
    EXPECT_EQ(to_hex(joint.unwrap(wrapped).bytes()), to_hex(data_key));
  }
}

// A share of another dataset, wrapped in order.
TEST_F(Joint, AShareOfAnotherDatasetIsRefused) {
  struct Other final : KeyProvider {
    const Keyring& keyring;
    explicit Other(const Keyring& to) : keyring(to) {}
    std::string name() const override { return "other"; }
    WrappedKey wrap(const std::string&, std::span<const std::byte> key) const override { return keyring.wrap("b", key); }
    SecretBytes unwrap(const WrappedKey& wrapped) const override { return keyring.unwrap(wrapped); }
    KeyInfo key(const std::string& id) const override { return keyring.key(id); }
    std::vector<KeyInfo> list() const override { return keyring.list(); }
    std::uint64_t generation() const override { return 0; }
  };
  const Other other(maker.place);
  const WrappedKey wrapped = JointProvider(maker.keyring, other).wrap("a", data_key);
  EXPECT_THROW(joint.unwrap(wrapped), SealError);
}

}  // namespace
}  // namespace hushgrad::seal_testing
