#include "dpcore/keys/argon2id.h"

#include <limits>

#include <argon2.h>
#include <openssl/crypto.h>
#include <sys/mman.h>

#include "dpcore/error.h"
#include "dpcore/keys/fips.h"

namespace hushgrad {
namespace {

// libargon2 takes pointers to what it may wipe; it is not told to.
std::uint8_t* in(std::span<const std::byte> bytes) {
  return const_cast<std::uint8_t*>(reinterpret_cast<const std::uint8_t*>(bytes.data()));
}

bool fits(std::uint64_t value) { return value <= std::numeric_limits<std::uint32_t>::max(); }

// The result can be computed from the last of these blocks: they do not belong into a core dump.
int allocate(std::uint8_t** memory, std::size_t size) {
  void* const mapped = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return ARGON2_MEMORY_ALLOCATION_ERROR;
  ::madvise(mapped, size, MADV_DONTDUMP);
  *memory = static_cast<std::uint8_t*>(mapped);
  return ARGON2_OK;
}

void release(std::uint8_t* memory, std::size_t size) {
  OPENSSL_cleanse(memory, size);
  ::munmap(memory, size);
}

}  // namespace

void argon2id(std::span<const std::byte> password, std::span<const std::byte> salt, const Argon2Cost& cost,
              std::span<std::byte> out, std::span<const std::byte> secret, std::span<const std::byte> associated_data) {
  if (fips_mode()) {
    throw Unsupported(
        "[argon2id] Expected a derivation that FIPS 140 approves, received Argon2id. Outside FIPS mode take the passphrase off "
        "the keyring (hushgrad keys protect), and set it again in FIPS mode: then it is PBKDF2.");
  }
  const bool sizes_fit = fits(password.size()) && fits(salt.size()) && fits(out.size()) && fits(secret.size()) &&
                         fits(associated_data.size());
  if (!sizes_fit || !fits(cost.memory_kib) || !fits(cost.passes) || !fits(cost.lanes)) {
    throw InvalidArgument("[argon2id] Expected sizes and costs below 2^32, received others.");
  }
  argon2_context context{};
  context.out = reinterpret_cast<std::uint8_t*>(out.data());
  context.outlen = static_cast<std::uint32_t>(out.size());
  context.pwd = in(password);
  context.pwdlen = static_cast<std::uint32_t>(password.size());
  context.salt = in(salt);
  context.saltlen = static_cast<std::uint32_t>(salt.size());
  context.secret = in(secret);
  context.secretlen = static_cast<std::uint32_t>(secret.size());
  context.ad = in(associated_data);
  context.adlen = static_cast<std::uint32_t>(associated_data.size());
  context.t_cost = static_cast<std::uint32_t>(cost.passes);
  context.m_cost = static_cast<std::uint32_t>(cost.memory_kib);
  context.lanes = context.threads = static_cast<std::uint32_t>(cost.lanes);
  context.version = ARGON2_VERSION_13;
  context.allocate_cbk = allocate;
  context.free_cbk = release;
  const int result = argon2id_ctx(&context);
  if (result == ARGON2_OK) return;
  OPENSSL_cleanse(out.data(), out.size());
  if (result == ARGON2_MEMORY_ALLOCATION_ERROR || result == ARGON2_THREAD_FAIL) {
    throw IoError(message("[argon2id] Expected ", cost.memory_kib, " KiB of memory and ", cost.lanes,
                          " threads, received: ", argon2_error_message(result), ". Free memory and try again."));
  }
  throw InvalidArgument(message("[argon2id] Expected lengths and costs that RFC 9106 allows, received others: ",
                                argon2_error_message(result), "."));
}

}  // namespace hushgrad
