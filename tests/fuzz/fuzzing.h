// What the targets share: input as bytes and as a file, a key that everybody knows, and the errors that are right.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>

#include <sys/mman.h>
#include <unistd.h>

#include "dpcore/error.h"
#include "dpcore/keys/bytes.h"
#include "dpcore/keys/key_provider.h"
#include "dpcore/keys/key_wrap.h"

namespace hushgrad::fuzzing {

inline std::span<const std::byte> bytes_of(const std::uint8_t* data, std::size_t size) {
  return std::as_bytes(std::span(data, size));
}

/// A file in memory with a path.
class MemoryFile {
 public:
  explicit MemoryFile(std::span<const std::byte> content) : descriptor_(::memfd_create("fuzz", MFD_CLOEXEC)) {
    if (::write(descriptor_, content.data(), content.size()) != static_cast<ssize_t>(content.size())) std::abort();
  }
  ~MemoryFile() { ::close(descriptor_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  std::string path() const { return "/proc/self/fd/" + std::to_string(descriptor_); }

 private:
  int descriptor_;
};

/// The same key for every dataset: bytes 00..1f.
class KnownKey final : public KeyProvider {
 public:
  std::string name() const override { return "fuzzing"; }
  WrappedKey wrap(const std::string&, std::span<const std::byte> key) const override {
    return {"known", aes256_kwp_wrap(kek(), key), 0};
  }
  SecretBytes unwrap(const WrappedKey& wrapped) const override {
    auto key = aes256_kwp_unwrap(kek(), wrapped.bytes);
    if (!key || key->size() != 32) throw SealError("wrapped key");
    return std::move(*key);
  }
  KeyInfo key(const std::string&) const override {
    KeyInfo info;
    info.dataset = "icu";
    return info;
  }
  std::vector<KeyInfo> list() const override { return {}; }
  std::uint64_t generation() const override { return 0; }

 private:
  static std::vector<std::byte> kek() {
    std::vector<std::byte> key(32);
    for (std::size_t i = 0; i < key.size(); ++i) key[i] = static_cast<std::byte>(i);
    return key;
  }
};

/// Any error of the taxonomy is a right answer; everything else is a finding.
template <typename Work>
void guarded(const Work& work) {
  try {
    work();
  } catch (const Error&) {
  }
}

inline void demand(bool holds) {
  if (!holds) std::abort();
}

}  // namespace hushgrad::fuzzing

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
