// Who has the data key can seal what he likes; the signature and the recorded digest tell that it is not the original.
#include "dpcore/sealed/manifest.h"

#include <algorithm>

#include <fcntl.h>
#include <unistd.h>

#include "dpcore/error.h"
#include "dpcore/keys/keyring.h"
#include "dpcore/keys/seal_testing.h"
#include "dpcore/sealed/container.h"
#include "dpcore/sealed/rewrap.h"
#include "dpcore/sealed/sealed_file.h"

namespace hushgrad {
namespace {

using namespace seal_testing;

constexpr std::size_t kSegment = 1 << 20;

class ManifestTest : public ::testing::Test {
 protected:
  ManifestTest() { keyring_.create_key("icu"); }

  std::string seal(const std::string& name, const SealedCore& core, const SigningKey* identity) {
    const std::vector<SealedTensor> tensors{{"w", "U8", {static_cast<std::int64_t>(weights_.size())}, weights_}};
    SealedWriter writer(folder_ / name, core, "{}", tensors, keyring_, {.if_exists = IfExists::replace, .identity = identity});
    writer.publish();
    return writer.digest();
  }
  SealedCore core() const {
    SealedCore core;
    core.dataset = "icu";
    core.epsilon_json = R"({"epsilon":2.5})";
    return core;
  }

  // What an insider can do: he has the data key, so he makes every MAC anew.
  SecretBytes data_key(const std::string& path) { return authenticate(ContainerHeader::open(path), keyring_); }

  TemporaryFolder folder_;
  Keyring keyring_ = Keyring::create(folder_ / "k");
  SigningKey run_ = SigningKey::generate();
  Bytes weights_ = Bytes(2 * kSegment + 5, std::byte{7});
};

TEST_F(ManifestTest, ASignedFileVerifiesWithThePublicKeyAndWithoutAnyOther) {
  for (SignatureAlgorithm algorithm : {SignatureAlgorithm::ecdsa_p384_sha384, SignatureAlgorithm::ed25519}) {
    const SigningKey run = SigningKey::generate(algorithm), other = SigningKey::generate(algorithm);
    const std::string digest = seal("a", core(), &run);
    SealedReader reader(folder_ / "a", keyring_);
    EXPECT_TRUE(reader.is_signed());
    EXPECT_EQ(reader.digest(), digest);
    EXPECT_EQ(reader.core().writer, run.public_key().id());
    EXPECT_NO_THROW(reader.verify_manifest(run.public_key()));
    EXPECT_NO_THROW(reader.verify_all());
    EXPECT_NO_THROW(verify_manifest(folder_ / "a", run.public_key()));
    expect_error<SealError>([&] { reader.verify_manifest(other.public_key()); }, other.public_key().id());
    expect_error<SealError>([&] { verify_manifest(folder_ / "a", other.public_key()); }, "signature");
  }
}

TEST_F(ManifestTest, AFileWithoutIdentitySaysUnsigned) {
  const std::string digest = seal("a", core(), nullptr);
  SealedReader reader(folder_ / "a", keyring_);
  EXPECT_FALSE(reader.is_signed());
  EXPECT_EQ(reader.core().writer, "");
  EXPECT_EQ(appearance_of(folder_ / "a").digest, digest);
  EXPECT_FALSE(appearance_of(folder_ / "a").is_signed);
  expect_error<SealError>([&] { reader.verify_manifest(run_.public_key()); }, "unsigned");
  EXPECT_NO_THROW(reader.trust_digest());
  EXPECT_NO_THROW(reader.verify_all());
}

// Attack 20: an insider writes a smaller epsilon, with the real key, and keeps the signature.
TEST_F(ManifestTest, AnInsiderWhoEditsEpsilonIsCaught) {
  const std::string honest = seal("a", core(), &run_);
  const ContainerHeader original = ContainerHeader::open(folder_ / "a");
  SealedCore edited = SealedReader(folder_ / "a", keyring_).core();
  edited.epsilon_json = R"({"epsilon":0.1})";
  const SigningKey own = SigningKey::generate();
  const std::string digest = seal("b", edited, &own);
  EXPECT_NE(digest, honest) << "a ledger that recorded the digest tells";
  expect_error<SealError>([&] { SealedReader(folder_ / "b", keyring_).verify_manifest(run_.public_key()); },
                          run_.public_key().id());

  // The core names the run, the trailer carries its old signature, and every MAC is right.
  Bytes file = read_file(folder_ / "b");
  const std::string mine = own.public_key().id(), theirs = run_.public_key().id();
  const auto at = std::search(file.begin(), file.end(), text_bytes(mine).begin(), text_bytes(mine).end());
  std::copy(text_bytes(theirs).begin(), text_bytes(theirs).end(), at);
  const SecretBytes key = data_key(folder_ / "b");
  ContainerHeader header = ContainerHeader::open(folder_ / "b");
  header.core_digest = sha384(std::span(file).first(header.state_offset()));
  const auto slot = encode_slot(1, header.active_slot().key, key, header.core_digest);
  std::copy(slot.begin(), slot.end(), file.begin() + static_cast<std::ptrdiff_t>(header.slot_offset(0)));
  const auto empty = encode_empty_slot(key, header.core_digest);
  std::copy(empty.begin(), empty.end(), file.begin() + static_cast<std::ptrdiff_t>(header.slot_offset(1)));
  const Floe floe = Floe::start_encryption(payload_key(key).bytes(), payload_context(header.core_digest), kSegment);
  header.floe_header = floe.header();
  Bytes payload(header.payload_bytes);
  Container(folder_ / "b", keyring_).read(0, payload);
  std::vector<SegmentDigest> digests;
  for (std::uint64_t i = 0; i < header.segments(); ++i) {
    const auto plain = std::span(payload).subspan(i * (kSegment - 32), header.segment_bytes(i) - 32);
    const auto place = std::span(file).subspan(header.segment_offset(i), header.segment_bytes(i));
    floe.encrypt_segment(i, i + 1 == header.segments(), plain, place);
    digests.push_back(segment_digest(place));
  }
  header.trailer.table_digest = sha384(std::as_bytes(std::span(digests)));
  const auto trailer = encode_trailer(header.manifest(), original.trailer.signature, key);
  std::copy(header.floe_header.begin(), header.floe_header.end(),
            file.begin() + static_cast<std::ptrdiff_t>(header.body_offset() - 74));
  const auto table = std::as_bytes(std::span(digests));
  std::copy(table.begin(), table.end(), file.begin() + static_cast<std::ptrdiff_t>(header.table_offset()));
  std::copy(trailer.begin(), trailer.end(), file.end() - 512);
  write_file(folder_ / "c", file);

  SealedReader forged(folder_ / "c", keyring_);  // opens: the insider has the key
  EXPECT_NO_THROW(forged.verify_all());
  EXPECT_EQ(forged.core().epsilon_json, edited.epsilon_json);
  expect_error<SealError>([&] { forged.verify_manifest(run_.public_key()); }, "changed after it was signed");
  expect_error<SealError>([&] { verify_manifest(folder_ / "c", run_.public_key()); }, "changed after it was signed");
}

// The manifest rests on digests of the segments, because GCM tags bind nobody who has the key.
TEST_F(ManifestTest, AnInsiderWhoChangesASegmentIsCaught) {
  seal("a", core(), &run_);
  const SecretBytes key = data_key(folder_ / "a");
  const ContainerHeader header = ContainerHeader::open(folder_ / "a");
  const Floe floe = Floe::start_decryption(payload_key(key).bytes(), payload_context(header.core_digest), kSegment,
                                           header.floe_header);
  Bytes file = read_file(folder_ / "a");
  const auto place = std::span(file).subspan(header.segment_offset(1), header.segment_bytes(1));
  Bytes plain(place.size() - 32, std::byte{9});
  floe.encrypt_segment(1, false, plain, place);
  write_file(folder_ / "b", file);

  SealedReader reader(folder_ / "b", keyring_);
  EXPECT_NO_THROW(reader.verify_all()) << "authentic for who only has the symmetric key";
  reader.verify_manifest(run_.public_key());  // the signature itself is right
  expect_error<SealError>([&] { reader.verify_all(); }, "segment 1");
  Bytes out(weights_.size());
  expect_error<SealError>([&] { reader.read(reader.entry("w"), out); }, "segment 1");
  EXPECT_EQ(out, Bytes(weights_.size()));
  EXPECT_NO_THROW(reader.read(reader.entry("w"), 0, std::span(out).first(100)));  // segment 0 is the original
  expect_error<SealError>([&] { verify_manifest(folder_ / "b", run_.public_key()); }, "segment 1");
}

TEST_F(ManifestTest, AnInsiderWhoChangesASegmentBetweenTwoReadsIsCaught) {
  seal("a", core(), nullptr);
  SealedReader reader(folder_ / "a", keyring_);
  reader.pin();
  const SecretBytes key = data_key(folder_ / "a");
  const ContainerHeader header = ContainerHeader::open(folder_ / "a", O_RDWR);
  const Floe floe = Floe::start_decryption(payload_key(key).bytes(), payload_context(header.core_digest), kSegment,
                                           header.floe_header);
  Bytes place(header.segment_bytes(1));
  floe.encrypt_segment(1, false, Bytes(place.size() - 32, std::byte{9}), place);
  ASSERT_EQ(::pwrite(header.file.get(), place.data(), place.size(), static_cast<off_t>(header.segment_offset(1))),
            static_cast<ssize_t>(place.size()));
  Bytes out(weights_.size());
  EXPECT_NO_THROW(SealedReader(folder_ / "a", keyring_).read(reader.entry("w"), out)) << "it is authentic";
  expect_error<SealError>([&] { reader.read(reader.entry("w"), out); }, "changed while it was read");
  EXPECT_EQ(out, Bytes(weights_.size()));
}

// Attack 14: GCM ciphertexts that decrypt under two keys exist; FLOE's header tag commits to one, whoever made the MACs.
TEST_F(ManifestTest, AFileOpensUnderOneDataKeyOnly) {
  seal("a", core(), nullptr);
  const ContainerHeader header = ContainerHeader::open(folder_ / "a");
  Bytes file = read_file(folder_ / "a");
  const SecretBytes second = SecretBytes::random(32);
  const auto put = [&](std::uint64_t at, std::span<const std::byte> bytes) {
    std::copy(bytes.begin(), bytes.end(), file.begin() + static_cast<std::ptrdiff_t>(at));
  };
  put(header.slot_offset(0), encode_slot(1, keyring_.wrap("icu", second.bytes()), second, header.core_digest));
  put(header.slot_offset(1), encode_empty_slot(second, header.core_digest));
  put(file.size() - 512, encode_trailer(header.manifest(), {}, second));
  write_file(folder_ / "b", file);
  expect_error<SealError>([&] { Container(folder_ / "b", keyring_); }, "payload header made with this key");
}

TEST_F(ManifestTest, TheSlotsAreNotSigned) {  // or no re-wrap could keep a signature
  const std::string digest = seal("a", core(), &run_);
  keyring_.rotate_key("icu");
  rewrap(folder_ / "a", keyring_);
  SealedReader reader(folder_ / "a", keyring_);
  EXPECT_EQ(reader.digest(), digest);
  EXPECT_NO_THROW(reader.verify_manifest(run_.public_key()));
}

}  // namespace
}  // namespace hushgrad
