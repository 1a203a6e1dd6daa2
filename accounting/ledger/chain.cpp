#include "accounting/ledger/chain.h"

#include <openssl/evp.h>
#include <unistd.h>

#include "dpcore/error.h"
#include "dpcore/keys/fips.h"

namespace hushgrad::ledger {
namespace {

constexpr std::string_view kDomain = "hushgrad ledger entry 1";

void append_integer(std::string& out, std::uint64_t value) {
  for (int shift = 56; shift >= 0; shift -= 8) out.push_back(static_cast<char>(value >> shift & 0xff));
}

void append_field(std::string& out, std::string_view bytes) {
  append_integer(out, bytes.size());
  out.append(bytes);
}

std::string_view view(const Hash& hash) { return {reinterpret_cast<const char*>(hash.data()), hash.size()}; }

}  // namespace

Hash entry_hash(const Entry& entry) {
  std::string text;
  text.reserve(160 + entry.payload.size());
  append_field(text, kDomain);
  append_integer(text, static_cast<std::uint64_t>(entry.sequence));
  append_integer(text, static_cast<std::uint64_t>(entry.time));
  append_field(text, entry.kind);
  append_field(text, entry.payload);
  append_field(text, view(entry.previous));
  static Fetched<EVP_MD> sha384(EVP_MD_fetch, "SHA384");
  const EVP_MD* const digest = sha384.get();
  Hash hash;
  unsigned int size = 0;
  if (digest == nullptr || EVP_Digest(text.data(), text.size(), hash.data(), &size, digest, nullptr) != 1 || size != hash.size()) {
    throw LedgerError("[ledger] Expected SHA-384 from OpenSSL, received an error. Check the OpenSSL installation.");
  }
  return hash;
}

std::string to_hex(std::string_view bytes) {
  constexpr char digits[] = "0123456789abcdef";
  std::string out;
  out.reserve(2 * bytes.size());
  for (unsigned char byte : bytes) {
    out.push_back(digits[byte >> 4]);
    out.push_back(digits[byte & 15]);
  }
  return out;
}

std::string to_hex(const Hash& hash) { return to_hex(view(hash)); }

std::string random_id() {
  char bytes[16];
  if (getentropy(bytes, sizeof bytes) != 0) {
    throw IoError("[ledger] Expected random bytes from the operating system, received an error. Check the kernel.");
  }
  return to_hex(std::string_view(bytes, sizeof bytes));
}

}  // namespace hushgrad::ledger
