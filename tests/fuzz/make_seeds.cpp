// Writes seeds for every target below one folder: good inputs, and those with one fault.
#include <filesystem>
#include <fstream>

#include "dpcore/keys/approval.h"
#include "dpcore/keys/keyring.h"
#include "dpcore/keys/utc_time.h"
#include "dpcore/sealed/archive.h"
#include "dpcore/sealed/container_header.h"
#include "dpcore/sealed/sealed_file.h"
#include "fuzz/fuzzing.h"

using namespace hushgrad;
namespace fs = std::filesystem;

int LLVMFuzzerTestOneInput(const std::uint8_t*, std::size_t) { return 0; }

namespace {

std::string content(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

}  // namespace

int main(int, char** arguments) {
  const fs::path root = arguments[1];
  ::setenv("HUSHGRAD_STATE_DIR", fs::absolute(root / "state").c_str(), 1);
  int number = 0;
  const auto put = [&](const char* target, std::string_view text) {
    fs::create_directories(root / target);
    std::ofstream(root / target / std::to_string(number++), std::ios::binary) << text;
  };
  const std::vector<std::byte> w(300, std::byte{7});
  const SigningKey identity = SigningKey::generate();
  SealedCore core;
  core.dataset = "icu";
  core.epsilon_json = R"({"delta":1e-05,"epsilon":[1,2.5]})";
  const std::string path = root / "seed";
  for (const SigningKey* signer : {static_cast<const SigningKey*>(nullptr), &identity}) {
    SealedWriter(path, core, R"({"a":[1,"b"]})", std::vector<SealedTensor>{{"w", "U8", {300}, w}, {"e", "F32", {0, 2}, {}}},
                 fuzzing::KnownKey(), {.if_exists = IfExists::replace, .identity = signer})
        .publish();
    const std::string file = content(path);
    put("header", file);
    const ContainerHeader header = ContainerHeader::open(path);
    for (std::uint64_t at : {std::uint64_t{0}, std::uint64_t{9}, std::uint64_t{11}, std::uint64_t{15}, std::uint64_t{23},
                             std::uint64_t{27}, header.state_offset(), header.slot_offset(0), header.slot_offset(1),
                             header.body_offset() - 1, header.body_offset(), header.table_offset(), file.size() - 1}) {
      std::string fault = file;
      fault[at] ^= 1;
      put("header", fault);
      put("header", file.substr(0, at));
    }
    put("core", header.core);
    put("key_slot", file.substr(header.state_offset(), ContainerFormat::kSlotAreaBytes));
  }
  fs::remove(path);
  const std::string index = R"({"meta":"{}","tensors":[{"begin":0,"dtype":"F32","end":16,"name":"w","shape":[2,2]}]})";
  put("index", std::string("\0\0\0\0\0\0\0\x10", 8) + index);
  put("index", std::string("\0\0\0\0\0\0\0\x11", 8) + index);
  put("floe", std::string(200, 'x'));
  put("floe", std::string(32, 'x'));
  const std::string meta = R"({"format":"hushgrad.archive/1","root":"folder","folders":["a"],"executable":["a/b"]})";
  for (const char* name : {"a/b", "../b", "a/../b", "/a/b", "a//b", "a"}) put("archive", meta + "\n" + name);
  put("keyring", "hushgrad keyring 1\n00112233445566778899aabbccddeeff 2026-01-31T12:00:00Z active "
                 "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f icu\n");
  const fs::path ring = root / "ring";
  for (const fs::path& old : {ring, fs::path(ring.string() + ".log")}) fs::remove(old);
  Keyring keyring = Keyring::create(ring);
  keyring.add_identity("Ada", "approver", identity.public_key());
  keyring.create_key("icu", {.expires = utc_now() + 1'000'000, .usage_limit = 3});
  keyring.rotate_key("icu", "yearly");
  keyring.suspend({.dataset = "icu"}, "audit");
  keyring.break_glass({.dataset = "icu"}, "night shift", 5);
  const std::string whole = content(ring), log = content(ring.string() + ".log");
  put("keyring", whole);
  put("keyring", whole.substr(0, whole.rfind("hmac-sha384")));  // the target makes the MAC anew
  put("key_log", log);
  put("key_log", log.substr(0, log.size() - 5));
  const std::string body = whole.substr(whole.find('\n') + 1);
  put("key_text", "\x02" + body.substr(0, body.find('\n')));
  put("key_text", "\x01" + identity.public_key().pem());
  put("key_text", "\x01" + SigningKey::generate(SignatureAlgorithm::ed25519).public_key().pem());
  put("key_text", std::string(1, '\0') + keyring.shred({.dataset = "icu"}, "retention ended", {"a.sealed"}));
  put("key_text", "\x03" + utc_text(utc_now()));
  put("key_log", content(ring.string() + ".log"));
  const Operation operation = make_operation("shred", {{"dataset", "icu"}}, "why", identity.public_key().id(), 3600);
  put("approval", to_text(operation));
  put("approval", to_text(approve(operation, SigningKey::generate())));
}
