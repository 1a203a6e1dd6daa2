#include "accounting/ledger/chain.h"

#include <gtest/gtest.h>

#include <set>

namespace hushgrad::ledger {
namespace {

Entry example() { return {2, 1'700'000'000'000'000, "charge", R"({"event":1})", Hash{1, 2, 3}, {}}; }

// Computed with Python's hashlib over the layout in docs/ledger.md:
//   u = lambda n: n.to_bytes(8, "big"); f = lambda b: u(len(b)) + b
//   hashlib.sha384(f(b"hushgrad ledger entry 1") + u(2) + u(1700000000000000) + f(b"charge") + f(b'{"event":1}')
//                  + f(bytes([1, 2, 3]) + bytes(45))).hexdigest()
TEST(Chain, HashFollowsTheDocumentedLayout) {
  EXPECT_EQ(to_hex(entry_hash(example())),
            "8ab1ab37ed2880bdd816320ff35cacb7e64eff6cc7a3cb2acf34e1584a1478e4c44ee3177fd5c09f077ae4f0e8ff48b2");
}

TEST(Chain, EveryFieldCounts) {
  std::set<std::string> hashes = {to_hex(entry_hash(example()))};
  Entry entry = example();
  entry.sequence = 3;
  hashes.insert(to_hex(entry_hash(entry)));
  entry = example();
  entry.time += 1;
  hashes.insert(to_hex(entry_hash(entry)));
  entry = example();
  entry.kind = "finish";
  hashes.insert(to_hex(entry_hash(entry)));
  entry = example();
  entry.payload[0] = ' ';
  hashes.insert(to_hex(entry_hash(entry)));
  entry = example();
  entry.previous[47] = 1;
  hashes.insert(to_hex(entry_hash(entry)));
  EXPECT_EQ(hashes.size(), 6u);
}

TEST(Chain, BytesCannotMoveFromOneFieldToTheNext) {
  Entry one = example(), other = example();
  one.kind = "ab";
  one.payload = "c";
  other.kind = "a";
  other.payload = "bc";
  EXPECT_NE(entry_hash(one), entry_hash(other));
}

TEST(Chain, RandomIdsAre32HexDigitsAndDiffer) {
  const std::string id = random_id();
  EXPECT_EQ(id.size(), 32u);
  EXPECT_EQ(id.find_first_not_of("0123456789abcdef"), std::string::npos);
  EXPECT_NE(id, random_id());
}

}  // namespace
}  // namespace hushgrad::ledger
