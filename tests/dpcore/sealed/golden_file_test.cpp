// A keyring and a sealed file of format version 1, as they were on the day the version was fixed: whatever
// changes, they must open. The key (bytes 00 to 1f) is for this test only.
#include <cstring>

#include <sys/stat.h>

#include "dpcore/keys/seal_testing.h"
#include "dpcore/sealed/sealed_file.h"

namespace hushgrad {
namespace {

using namespace seal_testing;

constexpr char kKeyring[] =
    "hushgrad keyring 1\n"
    "00112233445566778899aabbccddeeff 2026-01-31T12:00:00Z active "
    "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f icu\n"
    "sha384 "
    "bcc7af985ae10b36526dad94cb9c206c89fb01dac5efa78188ec048622defe4a29b7b3c46ef8952695ca916e9e6f0d80\n";

constexpr char kSealed[] =
    "48475345414c4544000100010000000000000000000000b9000000a27b2264617461736574223a22696375222c226570"
    "73696c6f6e223a227b5c22657073696c6f6e5c223a5b322e392c332e305d7d222c226c65646765725f68617368223a22"
    "61623132222c226c65646765725f73657175656e6365223a313230312c22706c616e223a227b5c226e6f6973655f6d75"
    "6c7469706c6965725c223a312e317d222c2272756e5f6964223a2272756e2d37222c2273746570223a313230307d0011"
    "2233445566778899aabbccddeeff6d158ae5ddfeea3817b7dd826b403c06ae6f7541f5ef4f9f083987c7f02ca441253a"
    "1661f8deff892da94382b55b6894b1543e7425ef1dbf985d2261bfdf1d258afdc810aa9ce03323afeb69fd743cdce4f2"
    "7128cbf13ec700000010000000000020a2b2d70f1476d3e541443a025cb076d62b3a08a5d3783dd5e7b421cce781f5de"
    "ee8eb8b54e322565dc0f70a152f7ec88911e97fad6ed591306230004471a4c68000000d9347853c7700862682cfc254e"
    "3f2f943f330a1fe667bae9f5d00c0996fc65368838260aa19297e65c53e1f3acbf1ef655cb831afe6c6aea495ab7939d"
    "08aa40123c192979f3973ddfc770d1fbe758b4b89f213ab3c6c9af5e69507155a779742abd5ace9e7a4d71ac69c70e24"
    "c5b8c76867a6ab16a2d4fc9197bfead2672d35ff70b89bab8b1bafa8a52d3273522409fc953e13b99cff07f024c6df4b"
    "9544ff96b814b18db33723073c3ea363596bcbf2697d5ffa92fef22e2e08c5fcd953358eb76cf07aa9993ed5523cc8b7"
    "d38451744b080446c0";

TEST(GoldenFile, OfVersion1StillOpens) {
  const TemporaryFolder folder;
  write_file(folder / "k", text_bytes(kKeyring));
  ::chmod((folder / "k").c_str(), 0600);
  write_file(folder / "s", hex(kSealed));
  const Keyring keyring = Keyring::open(folder / "k");
  ASSERT_EQ(keyring.list().size(), 1u);
  EXPECT_EQ(keyring.list()[0].dataset, "icu");
  EXPECT_EQ(keyring.list()[0].created, "2026-01-31T12:00:00Z");

  const SealedReader reader(folder / "s", keyring);
  const SealedCore expected{
      "icu", "run-7", 1200, R"({"noise_multiplier":1.1})", 1201, "ab12", R"({"epsilon":[2.9,3.0]})"};
  EXPECT_EQ(reader.core(), expected);
  EXPECT_EQ(reader.meta_json(), R"({"lr":0.1})");
  ASSERT_EQ(reader.tensors().size(), 2u);
  float w[4];
  reader.read(reader.entry("w"), std::as_writable_bytes(std::span(w)));
  std::int64_t n;
  reader.read(reader.entry("n"), std::as_writable_bytes(std::span(&n, 1)));
  const float counted[4] = {1, 2, 3, 4};
  EXPECT_EQ(std::memcmp(w, counted, sizeof w), 0);
  EXPECT_EQ(n, 7);
  EXPECT_NO_THROW(reader.verify_all());
}

}  // namespace
}  // namespace hushgrad
