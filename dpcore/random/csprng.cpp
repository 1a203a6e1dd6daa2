#include "dpcore/random/csprng.h"

#include <algorithm>
#include <cstring>

#include "dpcore/error.h"
#include "dpcore/random/os_entropy.h"
#include "dpcore/random/process_identity.h"

namespace hushgrad {
namespace {

constexpr std::size_t kReseedInterval = std::size_t{1} << 20;

}  // namespace

Csprng::Csprng() : drbg_(OsEntropy().bytes()), process_(process_identity()) {}

Csprng::Csprng(CtrDrbg::Entropy entropy, Origin origin)
    : drbg_(entropy), process_(process_identity()), origin_(origin) {}

Csprng::~Csprng() { wipe(buffer_); }

void Csprng::fill(std::span<std::byte> out) {
  check_process();
  while (out.size() >= buffer_.size()) {
    const std::span<std::byte> request = out.first(std::min(out.size(), CtrDrbg::kMaxRequestBytes));
    generate(request);
    out = out.subspan(request.size());
  }
  while (!out.empty()) {
    if (used_ == buffer_.size()) {
      generate(buffer_);
      used_ = 0;
    }
    const std::span<std::byte> ready = std::span(buffer_).subspan(used_);
    const std::span<std::byte> given = ready.first(std::min(out.size(), ready.size()));
    std::memcpy(out.data(), given.data(), given.size());
    wipe(given);
    used_ += given.size();
    out = out.subspan(given.size());
  }
}

std::uint64_t Csprng::next_u64() {
  std::uint64_t value;
  fill(std::as_writable_bytes(std::span(&value, 1)));
  return value;
}

void Csprng::reseed() {
  if (origin_ == Origin::insecure_seed) return;
  if (origin_ == Origin::shared_key) {
    throw PrivacyViolation("[random] Expected a stream of this process alone for noise and keys, received one that several processes draw "
                           "batches from. Make a Csprng.");
  }
  wipe(buffer_);
  used_ = buffer_.size();
  drbg_.reseed(OsEntropy().bytes());
  since_reseed_ = 0;
  process_ = process_identity();
}

void Csprng::check_process() {
  if (origin_ == Origin::insecure_seed || process_ == process_identity()) return;
  if (origin_ == Origin::system) return reseed();
  throw InvalidState("[random] Expected the process that agreed on the shared stream, received a forked child of it. Draw batches in the "
                     "process that trains.");
}

void Csprng::generate(std::span<std::byte> out) {
  if (origin_ == Origin::system && since_reseed_ >= kReseedInterval) reseed();
  drbg_.generate(out);
  since_reseed_ += out.size();
}

}  // namespace hushgrad
