#include "dpcore/sealed/sealed_file.h"

#include <algorithm>
#include <atomic>
#include <thread>

#include <sys/wait.h>
#include <unistd.h>

#include "dpcore/error.h"
#include "dpcore/keys/keyring.h"
#include "dpcore/keys/seal_testing.h"
#include "dpcore/sealed/container.h"

namespace hushgrad {
namespace {

using namespace seal_testing;

SealedCore a_core() {
  SealedCore core;
  core.dataset = "icu";
  core.run_id = "run-7";
  core.step = 1200;
  core.plan_json = R"({"noise_multiplier": 1.1})";
  core.ledger_sequence = 1201;
  core.ledger_hash = "ab12";
  core.epsilon_json = R"({"delta": 1e-5, "epsilon": [2.9, 3.0]})";
  core.tenant = "clinic";
  core.ledger_id = "l-1";
  core.policy_id = "p";
  core.policy_digest = "d";
  core.previous = std::string(96, 'a');
  return core;
}

// What the writer fills in is left out.
SealedCore given(SealedCore core) {
  core.file_id = core.writer = core.software = "";
  core.created = core.keyring_generation = core.index_bytes = core.payload_bytes = 0;
  return core;
}

Bytes pattern(std::size_t size, int seed) {
  Bytes out(size);
  for (std::size_t i = 0; i < size; ++i) {
    out[i] = static_cast<std::byte>((i * 31 + i / 251 + static_cast<std::size_t>(seed)) & 255);
  }
  return out;
}

Bytes read_tensor(const SealedReader& reader, const std::string& name) {
  const SealedReader::Entry& entry = reader.entry(name);
  Bytes out(entry.end - entry.begin);
  reader.read(entry, out);
  return out;
}

class SealedFileTest : public ::testing::Test {
 protected:
  SealedFileTest() { keyring_.create_key("icu"); }

  // Seals a payload and a core that write_sealed() would never make, properly, under the right key.
  void expect_hostile_refused(const std::string& core, std::string_view payload, std::string_view part) {
    ContainerWriter(folder_ / "x", "icu", core, MemorySource({text_bytes(payload)}), keyring_,
                    {.if_exists = IfExists::replace})
        .publish();
    expect_error<SealError>([&] { SealedReader(folder_ / "x", keyring_); }, part);
  }

  TemporaryFolder folder_;
  Keyring keyring_ = Keyring::create(folder_ / "k");
};

// The core of a payload with an index of this length and nothing else.
std::string good_core(std::size_t index_bytes, std::size_t payload_bytes) {
  return message(R"({"created":0,"dataset":"icu","epsilon":"{}","file_id":"00000000000000000000000000000000",)",
                 R"("index_bytes":)", index_bytes, R"(,"keyring_generation":0,"ledger_hash":"","ledger_id":"",)",
                 R"("ledger_sequence":0,"payload_bytes":)", payload_bytes,
                 R"(,"plan":"{}","policy":"","policy_digest":"","previous":"","run_id":"","software":"","step":0,)",
                 R"("tenant":"","writer":""})");
}
const std::string kGoodCore = good_core(26, 34);
const std::string kEmptyPayload = std::string("\0\0\0\0\0\0\0\x1A", 8) + R"({"meta":"{}","tensors":[]})";

TEST_F(SealedFileTest, RoundTripsTensorsMetaAndCore) {
  const Bytes big = pattern(3 << 20, 1), small = pattern(6, 2), scalar = pattern(8, 3);
  const std::vector<SealedTensor> tensors{{"layer.0.weight", "F32", {3, 262144}, big},
                                          {"layer.0.bias", "BF16", {3}, small},
                                          {"empty", "I64", {0, 5}, {}},
                                          {"step", "I64", {}, scalar}};
  write_sealed(folder_ / "a", a_core(), R"({"lr": [0.1, null]})", tensors, keyring_);
  const SealedReader reader(folder_ / "a", keyring_);
  EXPECT_EQ(given(reader.core()), a_core());
  EXPECT_GT(reader.core().created, 1'700'000'000'000'000);
  EXPECT_EQ(reader.core().software, "hushgrad 0.1.0");
  EXPECT_TRUE(is_hex(reader.core().file_id, 16));
  EXPECT_EQ(reader.meta_json(), R"({"lr": [0.1, null]})");
  ASSERT_EQ(reader.tensors().size(), 4u);
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const auto& entry = reader.tensors()[i];
    EXPECT_EQ(entry.name, tensors[i].name);
    EXPECT_EQ(entry.dtype, tensors[i].dtype);
    EXPECT_EQ(entry.shape, tensors[i].shape);
    EXPECT_EQ(read_tensor(reader, entry.name), Bytes(tensors[i].bytes.begin(), tensors[i].bytes.end()));
  }
  EXPECT_NO_THROW(reader.verify_all());
  EXPECT_EQ(inspect_sealed(folder_ / "a"), reader.core());
}

TEST_F(SealedFileTest, NoPlaintextOnDisk) {
  const Bytes weights = bytes_of("these weights must not be found on the disk, anywhere");
  write_sealed(
      folder_ / "a", a_core(), R"({"secret_meta":1})",
      std::vector<SealedTensor>{{"secret_name", "U8", {static_cast<std::int64_t>(weights.size())}, weights}},
      keyring_);
  const Bytes file = read_file(folder_ / "a"), keys = read_file(folder_ / "k");
  for (const char* text : {"these weights", "secret_meta", "secret_name"}) {
    EXPECT_EQ(std::search(file.begin(), file.end(), text_bytes(text).begin(), text_bytes(text).end()),
              file.end())
        << text;
  }
  const auto core = text_bytes("noise_multiplier");  // the core is public by design
  EXPECT_NE(std::search(file.begin(), file.end(), core.begin(), core.end()), file.end());
}

TEST_F(SealedFileTest, NothingAtAllIsAFileToo) {
  write_sealed(folder_ / "a", {.dataset = "icu"}, "{}", {}, keyring_);
  const SealedReader reader(folder_ / "a", keyring_);
  EXPECT_TRUE(reader.tensors().empty());
  EXPECT_NO_THROW(reader.verify_all());
  EXPECT_THROW(reader.entry("x"), InvalidArgument);
}

TEST_F(SealedFileTest, RefusesToReplaceUnlessAsked) {
  write_sealed(folder_ / "a", a_core(), "1", {}, keyring_);
  EXPECT_THROW(write_sealed(folder_ / "a", a_core(), "2", {}, keyring_), IoError);
  EXPECT_EQ(SealedReader(folder_ / "a", keyring_).meta_json(), "1");
  write_sealed(folder_ / "a", a_core(), "3", {}, keyring_, IfExists::replace);
  EXPECT_EQ(SealedReader(folder_ / "a", keyring_).meta_json(), "3");
}

TEST_F(SealedFileTest, RefusesToWriteAnInvalidCore) {
  const auto refused = [&](auto change) {
    SealedCore core = a_core();
    change(core);
    EXPECT_THROW(write_sealed(folder_ / "a", core, "{}", {}, keyring_), InvalidArgument);
    EXPECT_FALSE(std::filesystem::exists(folder_ / "a"));
  };
  refused([](SealedCore& c) { c.dataset = "icu\n"; });
  refused([](SealedCore& c) { c.step = -1; });
  refused([](SealedCore& c) { c.ledger_sequence = -1; });
  refused([](SealedCore& c) { c.plan_json = ""; });
  refused([](SealedCore& c) { c.epsilon_json = "{\"epsilon\": NaN}"; });
  refused([](SealedCore& c) { c.run_id = "\xFF"; });
  refused([](SealedCore& c) { c.run_id = std::string(1 << 20, 'x'); });
  SealedCore core = a_core();
  core.dataset = "no-key-yet";
  EXPECT_THROW(write_sealed(folder_ / "a", core, "{}", {}, keyring_), KeyError);
}

TEST_F(SealedFileTest, ReadWantsTheExactRoomAndAnEntryOfTheFile) {
  const Bytes w = pattern(16, 1);
  write_sealed(folder_ / "a", a_core(), "{}", std::vector<SealedTensor>{{"w", "F32", {4}, w}}, keyring_);
  const SealedReader reader(folder_ / "a", keyring_);
  Bytes short_room(15), room(16), long_room(17);
  EXPECT_THROW(reader.read(reader.entry("w"), short_room), InvalidArgument);
  EXPECT_THROW(reader.read(reader.entry("w"), long_room), InvalidArgument);
  EXPECT_THROW(reader.read({"forged", "F32", {4}, 1, 17}, room), InvalidArgument);
  EXPECT_THROW(reader.read({"forged", "F32", {4}, UINT64_MAX - 15, 0}, room), InvalidArgument);
  EXPECT_THROW(reader.read({"forged", "F32", {4}, UINT64_MAX - 15, UINT64_MAX}, room), InvalidArgument);
}

// A file may name a dataset of its own only under that dataset's key.
TEST_F(SealedFileTest, ACoreThatNamesAnotherDatasetIsAKeyError) {
  keyring_.create_key("other");
  const std::span<const std::byte> chunk = text_bytes(kEmptyPayload);
  ContainerWriter(folder_ / "x", "other", kGoodCore, MemorySource({chunk}), keyring_).publish();
  expect_error<KeyError>([&] { SealedReader(folder_ / "x", keyring_); }, "other");
  ContainerWriter(folder_ / "y", "icu", kGoodCore, MemorySource({chunk}), keyring_).publish();
  EXPECT_NO_THROW(SealedReader(folder_ / "y", keyring_));
}

TEST_F(SealedFileTest, HostilePayloadsAreRefused) {
  const std::string index = R"({"meta":"{}","tensors":[]})";
  const auto with_length = [&](std::uint64_t length, const std::string& rest) {
    std::vector<std::byte> bytes;
    append_big_endian(bytes, length, 8);
    return std::string(reinterpret_cast<const char*>(bytes.data()), 8) + rest;
  };
  ASSERT_EQ(with_length(index.size(), index), kEmptyPayload);
  for (std::uint64_t length :
       {std::uint64_t{27}, std::uint64_t{1} << 31, (std::uint64_t{1} << 32) - 1, std::uint64_t{64} << 20,
        (std::uint64_t{64} << 20) + 1, std::uint64_t{1} << 63, UINT64_MAX, UINT64_MAX - 7}) {
    expect_hostile_refused(good_core(length, 34), with_length(length, index), "xpected");
  }
  for (std::size_t size : {1u, 7u}) {
    expect_hostile_refused(good_core(0, size), std::string(size, '\0'), "index within the payload");
  }
  for (std::uint64_t length : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{25}}) {
    expect_hostile_refused(good_core(length, 34), with_length(length, index), "index with");
    expect_hostile_refused(kGoodCore, with_length(length, index), "index within the payload");
  }
  expect_hostile_refused(good_core(26, 35), kEmptyPayload + "x", "tensors up to the end");
  expect_hostile_refused(good_core(26, 35), kEmptyPayload, "fits its file");
  std::string signed_by_nobody = kGoodCore;
  signed_by_nobody.replace(signed_by_nobody.find("\"writer\":\"\""), 11, "\"writer\":\"" + std::string(32, 'a') + "\"");
  expect_hostile_refused(signed_by_nobody, kEmptyPayload, "fits its file");
}

TEST_F(SealedFileTest, HostileCoresAreRefused) {
  const std::string good = kGoodCore;
  const auto replaced = [&](const std::string& from, const std::string& to) {
    std::string core = good;
    core.replace(core.find(from), from.size(), to);
    return core;
  };
  for (const std::string& core : {
           std::string(),
           std::string("null"),
           std::string("[]"),
           std::string("{}"),
           good + " ",
           " " + good,
           replaced("\"step\":0", "\"step\":-1"),
           replaced("\"step\":0", "\"step\":0.0"),
           replaced("\"step\":0", "\"step\":\"0\""),
           replaced("\"step\":0", "\"step\":9223372036854775808"),
           replaced("\"step\":0", "\"step\":[0]"),
           replaced("\"step\":0", "\"step\":0,\"step\":0"),
           replaced("\"step\":0", "\"step\":0,\"zzz\":0"),
           replaced(",\"step\":0", ""),
           replaced("\"run_id\":\"\"", "\"run_id\":0"),
           replaced("\"plan\":\"{}\"", "\"plan\":\"{\""),
           replaced("\"plan\":\"{}\"", "\"plan\":{}"),
           replaced("\"epsilon\":\"{}\"", "\"epsilon\":\"\""),
           replaced("\"dataset\":\"icu\"", "\"dataset\":\"\""),
           replaced("\"dataset\":\"icu\"", "\"dataset\":\"i\\u0000u\""),
           replaced("\"run_id\":\"\"", "\"run_id\":\"\xFF\""),
           replaced("\"dataset\"", "\"\\u0064ataset\""),
           replaced("\"run_id\":\"\"", "\"run_id\":\"../../etc\""),
           replaced("\"tenant\":\"\"", "\"tenant\":\"..\""),
           replaced("\"policy\":\"\"", "\"policy\":\"a\\u0000b\""),
           replaced("\"run_id\":\"\"", "\"run_id\":\"" + std::string(257, 'r') + "\""),
           replaced("\"epsilon\":\"{}\"", "\"epsilon\":\"{\\\"epsilon\\\":-1}\""),
           replaced("\"epsilon\":\"{}\"", "\"epsilon\":\"{\\\"epsilon\\\":[1,-0.5]}\""),
           replaced("\"epsilon\":\"{}\"", "\"epsilon\":\"{\\\"epsilon\\\":NaN}\""),
           replaced("\"epsilon\":\"{}\"", "\"epsilon\":\"{\\\"epsilon\\\":\\\"none\\\"}\""),
           replaced("\"epsilon\":\"{}\"", "\"epsilon\":\"{\\\"delta\\\":1.5}\""),
           replaced("\"file_id\":\"0", "\"file_id\":\"x"),
           replaced("\"previous\":\"\"", "\"previous\":\"ab\""),
           replaced("\"writer\":\"\"", "\"writer\":\"me\""),
           replaced("\"payload_bytes\":34", "\"payload_bytes\":-34"),
           replaced("\"keyring_generation\":0", "\"keyring_generation\":1e3"),
           std::string(1 << 20, '['),
           std::string(1 << 19, '[') + std::string(1 << 19, ']'),
       }) {
    expect_hostile_refused(core, kEmptyPayload, "core of known fields");
    EXPECT_THROW(inspect_sealed(folder_ / "x"), SealError);
  }
}

// Without a key: whoever lists a folder reads the core of any file in it.
TEST_F(SealedFileTest, NestingInAnUnauthenticatedCoreEndsNobody) {
  for (const int deep : {4, 5, 400'000}) {
    const std::string lists = std::string(static_cast<std::size_t>(deep), '[') + std::string(static_cast<std::size_t>(deep), ']');
    std::string core = kGoodCore;
    core.replace(core.find(R"("epsilon":"{}")"), 14, R"("epsilon":"{\"epsilon\":)" + lists + R"(}")");
    ContainerWriter(folder_ / "x", "icu", core, MemorySource({text_bytes(kEmptyPayload)}), keyring_,
                    {.if_exists = IfExists::replace})
        .publish();
    if (deep == 4) {
      EXPECT_NO_THROW(inspect_sealed(folder_ / "x"));
      continue;
    }
    EXPECT_THROW(inspect_sealed(folder_ / "x"), SealError);
    EXPECT_THROW(appearance_of(folder_ / "x"), SealError);
  }
}

// OpenMP's pool does not survive a fork: its next parallel region would never end.
TEST_F(SealedFileTest, AForkedProcessSealsAndOpens) {
  const Bytes data = pattern(40 << 20, 5);
  const std::vector<SealedTensor> tensors{{"w", "U8", {40 << 20}, data}};
  write_sealed(folder_ / "a", a_core(), "{}", tensors, keyring_);
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(60);
    write_sealed(folder_ / "b", a_core(), "{}", tensors, keyring_);
    SealedReader(folder_ / "b", keyring_).verify_all();
    ::_exit(0);
  }
  int status = -1;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0) << "14: it waited until the alarm";
}

TEST_F(SealedFileTest, ReadsFromManyThreads) {
  std::vector<Bytes> data;
  std::vector<SealedTensor> tensors;
  for (int i = 0; i < 40; ++i) data.push_back(pattern(static_cast<std::size_t>(i) * 20011 + 1, i));
  for (int i = 0; i < 40; ++i) {
    tensors.push_back({message("t", i), "U8", {static_cast<std::int64_t>(data[i].size())}, data[i]});
  }
  write_sealed(folder_ / "a", a_core(), "{}", tensors, keyring_);
  const SealedReader reader(folder_ / "a", keyring_);
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 40; ++i) {
        wrong += read_tensor(reader, message("t", (i * 7 + t * 11) % 40)) != data[(i * 7 + t * 11) % 40];
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

TEST_F(SealedFileTest, ReadsSomeTensorsInAnyOrder) {
  const Bytes big = pattern(3 << 20, 1), small = pattern(6, 2), last = pattern(1 << 20, 3);
  const std::vector<SealedTensor> tensors{
      {"big", "U8", {3 << 20}, big}, {"none", "F32", {0}, {}}, {"small", "BF16", {3}, small}, {"last", "U8", {1 << 20}, last}};
  write_sealed(folder_ / "a", a_core(), "{}", tensors, keyring_);
  const SealedReader reader(folder_ / "a", keyring_);
  Bytes one(1 << 20), two(6);
  const std::vector<std::string> names{"last", "none", "small"};
  const std::vector<std::span<std::byte>> outs{one, {}, two};
  reader.read_some(names, outs);
  EXPECT_EQ(one, last);
  EXPECT_EQ(two, small);
  const std::vector<std::span<std::byte>> twice{two, two};
  EXPECT_THROW(reader.read_some(std::vector<std::string>{"small", "small"}, twice), InvalidArgument);
  EXPECT_THROW(reader.read_some(std::vector<std::string>{"small", "big"}, twice), InvalidArgument);
  EXPECT_THROW(reader.read_some(std::vector<std::string>{"small"}, twice), InvalidArgument);
  EXPECT_THROW(reader.read_some(std::vector<std::string>{"nobody"}, {twice.data(), 1}), InvalidArgument);
}

TEST_F(SealedFileTest, WhatChangesAfterItWasPinnedIsRefused) {
  const Bytes data = pattern(5 << 20, 1);
  const std::vector<SealedTensor> tensors{{"w", "U8", {5 << 20}, data}};
  write_sealed(folder_ / "a", a_core(), "{}", tensors, keyring_);
  const Bytes whole = read_file(folder_ / "a");
  for (const std::size_t at : {whole.size() - 1000, whole.size() / 2}) {  // the last segment and one before
    write_file(folder_ / "b", whole);
    SealedReader reader(folder_ / "b", keyring_);
    reader.pin();
    Bytes out(5 << 20);
    const std::vector<std::span<std::byte>> outs{out};
    EXPECT_NO_THROW(reader.read_all(outs));
    {
      std::fstream file(folder_ / "b", std::ios::in | std::ios::out | std::ios::binary);
      file.seekp(static_cast<std::streamoff>(at));
      file.put(static_cast<char>(~std::to_integer<int>(whole[at])));
    }
    EXPECT_THROW(reader.read_all(outs), SealError);
    EXPECT_EQ(out, Bytes(5 << 20));
  }
  Bytes damaged = whole;
  damaged[whole.size() - 1000] ^= std::byte{1};
  write_file(folder_ / "b", damaged);
  SealedReader reader(folder_ / "b", keyring_);
  EXPECT_THROW(reader.pin(), SealError);
}

TEST_F(SealedFileTest, AMovedReaderStillReads) {
  const Bytes w = pattern(16, 1);
  write_sealed(folder_ / "a", a_core(), "{}", std::vector<SealedTensor>{{"w", "F32", {4}, w}}, keyring_);
  SealedReader first(folder_ / "a", keyring_);
  SealedReader second = std::move(first);
  EXPECT_EQ(read_tensor(second, "w"), w);
}

}  // namespace
}  // namespace hushgrad
