#include "dpcore/keys/secret_bytes.h"

#include <utility>

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/rand.h>
#include <sys/mman.h>

#include "dpcore/error.h"
#include "dpcore/keys/bytes.h"
#include "dpcore/keys/fips.h"

namespace hushgrad {
namespace {

constexpr std::size_t kSecureHeapBytes = 64 * 1024;  // small enough for the usual RLIMIT_MEMLOCK
constexpr std::size_t kLargestSecureBlock = 4096;    // a large block would only crowd out the keys

// Blocks for which the secure heap is too small or full: pages of their own, out of core dumps, locked where there is leave.
std::byte* allocate_pages(std::size_t size) {
  void* const pages = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED) throw IoError(message("[secret_bytes] Expected ", size, " bytes of memory, received none."));
  ::madvise(pages, size, MADV_DONTDUMP);
  if (size <= kLargestSecureBlock) ::mlock(pages, size);
  return static_cast<std::byte*>(pages);
}

std::byte* allocate(std::size_t size) {
  if (size == 0) return nullptr;
  static const bool initialized =
      CRYPTO_secure_malloc_initialized() || CRYPTO_secure_malloc_init(kSecureHeapBytes, 32);
  void* data = nullptr;
  if (initialized && size <= kLargestSecureBlock) data = OPENSSL_secure_zalloc(size);
  if (data != nullptr) return static_cast<std::byte*>(data);
  ERR_clear_error();
  return allocate_pages(size);
}

[[noreturn]] void fail() {
  ERR_clear_error();
  throw IoError(
      "[random] Expected random bytes from OpenSSL, received an error. Check the entropy source of this "
      "machine.");
}

}  // namespace

SecretBytes::SecretBytes(std::size_t size) : data_(allocate(size)), size_(size) {}

SecretBytes SecretBytes::random(std::size_t size) {
  SecretBytes secret(size);
  if (RAND_priv_bytes_ex(openssl_source().context, openssl_out(secret.bytes()), size, 0) != 1) fail();
  return secret;
}

SecretBytes::SecretBytes(SecretBytes&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

SecretBytes& SecretBytes::operator=(SecretBytes&& other) noexcept {
  if (this == &other) return *this;
  release();
  data_ = std::exchange(other.data_, nullptr);
  size_ = std::exchange(other.size_, 0);
  return *this;
}

SecretBytes::~SecretBytes() { release(); }

// Wipes, and knows by the address from which of the two heaps the block came.
void SecretBytes::release() noexcept {
  if (data_ == nullptr) return;
  if (CRYPTO_secure_allocated(data_) == 1) {
    OPENSSL_secure_clear_free(data_, size_);
  } else {
    OPENSSL_cleanse(data_, size_);
    ::munmap(data_, size_);
  }
}

void fill_random(std::span<std::byte> out) {
  if (RAND_bytes_ex(openssl_source().context, openssl_out(out), out.size(), 0) != 1) fail();
}

}  // namespace hushgrad
