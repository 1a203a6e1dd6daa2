#include "dpcore/sealed/ephemeral_keys.h"

#include "dpcore/error.h"
#include "dpcore/keys/seal_testing.h"
#include "dpcore/sealed/sealed_file.h"

namespace hushgrad {
namespace {

using namespace seal_testing;

TEST(EphemeralKeys, OpensWhatItSealedUntilItIsDestroyed) {
  const TemporaryFolder folder;
  EphemeralKeys keys;
  write_sealed(folder / "a", {.dataset = kScratchDataset}, "{}", std::vector<SealedTensor>{{"w", "U8", {4}, text_bytes("data")}},
               keys);
  EXPECT_NO_THROW(SealedReader(folder / "a", keys).verify_all());
  EXPECT_THROW(SealedReader(folder / "a", EphemeralKeys()), KeyError);
  keys.destroy();
  keys.destroy();
  EXPECT_THROW(SealedReader(folder / "a", keys), KeyError);
  EXPECT_THROW(keys.wrap(kScratchDataset, SecretBytes::random(32).bytes()), KeyError);
}

}  // namespace
}  // namespace hushgrad
