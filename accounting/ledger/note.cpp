#include "accounting/ledger/note.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <unistd.h>

#include <charconv>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "accounting/ledger/chain.h"
#include "dpcore/error.h"
#include "dpcore/keys/fips.h"

namespace hushgrad {
namespace {

constexpr char kEd25519 = 1;  // the algorithm byte of the signed-note specification
constexpr std::size_t kKeyBytes = 32, kSignatureBytes = 64, kIdBytes = 4;
constexpr std::string_view kPrivate = "PRIVATE+KEY+";
constexpr std::string_view kDash = "\xe2\x80\x94 ";  // the em dash and the space that begin a signature line
constexpr std::string_view kOrigin = "hushgrad-ledger/";

using Pkey = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;
using Context = std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)>;

const unsigned char* raw(std::string_view text) { return reinterpret_cast<const unsigned char*>(text.data()); }

[[noreturn]] void refuse(const char* expected) {
  throw InvalidArgument(message("[note] Expected ", expected, ", received another text. Use what hushgrad ledger witness wrote."));
}

[[noreturn]] void no_openssl() {
  throw LedgerError("[note] Expected Ed25519 from OpenSSL, received an error. Check the OpenSSL installation.");
}

std::string base64(std::string_view bytes) {
  std::string out(4 * ((bytes.size() + 2) / 3) + 1, '\0');
  const int size = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()), raw(bytes), static_cast<int>(bytes.size()));
  out.resize(static_cast<std::size_t>(size));
  return out;
}

std::string from_base64(std::string_view text, std::size_t bytes) {
  std::string out(3 * (text.size() / 4) + 1, '\0');
  const int size = text.size() > 1024 ? -1
      : EVP_DecodeBlock(reinterpret_cast<unsigned char*>(out.data()), raw(text), static_cast<int>(text.size()));
  if (size < 0 || static_cast<std::size_t>(size) < bytes) refuse("base64 of the right length");
  out.resize(bytes);
  // One text only for the same bytes: no white space, no other padding.
  if (base64(out) != text) refuse("base64 of the right length");
  return out;
}

std::string key_id(std::string_view name, std::string_view public_key) {
  std::string text = std::string(name) + '\n' + kEd25519 + std::string(public_key);
  static Fetched<EVP_MD> sha256(EVP_MD_fetch, "SHA256");
  const EVP_MD* const algorithm = sha256.get();
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  if (algorithm == nullptr || EVP_Digest(text.data(), text.size(), digest, &size, algorithm, nullptr) != 1) no_openssl();
  return {reinterpret_cast<char*>(digest), kIdBytes};
}

bool is_name(std::string_view name) {
  if (name.empty() || name.size() > 256) return false;
  for (const unsigned char c : name) {
    if (c <= ' ' || c == '+' || c == 0x7f || c >= 0x80) return false;
  }
  return true;
}

struct Key {
  std::string name, id, bytes;
};

// name+hash+base64(algorithm, 32 bytes)
Key parse_key(std::string_view text) {
  const std::size_t first = text.find('+');
  const std::size_t second = first == text.npos ? text.npos : text.find('+', first + 1);
  if (second == text.npos || !is_name(text.substr(0, first))) refuse("a key name+hash+base64");
  const std::string bytes = from_base64(text.substr(second + 1), 1 + kKeyBytes);
  if (bytes[0] != kEd25519) refuse("an Ed25519 key");
  return {std::string(text.substr(0, first)), std::string(text.substr(first + 1, second - first - 1)), bytes.substr(1)};
}

// FIPS providers of OpenSSL 3.1 to 3.3 have no Ed25519; nothing falls back to another one.
[[noreturn]] void no_ed25519() {
  if (!fips_mode()) no_openssl();
  throw Unsupported("[note] Expected Ed25519 from the FIPS provider, received none. Sign notes on a machine outside FIPS mode.");
}

Pkey private_key(const std::string& seed) {
  const OpensslSource source = openssl_source();
  Pkey key(EVP_PKEY_new_raw_private_key_ex(source.context, "ED25519", source.properties, raw(seed), seed.size()), EVP_PKEY_free);
  if (!key) no_ed25519();
  return key;
}

std::string public_half(const Pkey& key) {
  std::string bytes(kKeyBytes, '\0');
  std::size_t size = bytes.size();
  if (EVP_PKEY_get_raw_public_key(key.get(), reinterpret_cast<unsigned char*>(bytes.data()), &size) != 1) no_openssl();
  return bytes;
}

void check_text(std::string_view text) {
  if (text.empty() || text.back() != '\n') refuse("a text that ends with a line feed");
  for (const unsigned char c : text) {
    if ((c < ' ' && c != '\n') || c == 0x7f) refuse("a text without control characters");
  }
}

bool is_signed(std::string_view text, const std::string& signature, const std::string& public_key) {
  const OpensslSource source = openssl_source();
  const Pkey key(EVP_PKEY_new_raw_public_key_ex(source.context, "ED25519", source.properties, raw(public_key), public_key.size()),
                 EVP_PKEY_free);
  if (!key) no_ed25519();
  const Context context(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  if (!context || EVP_DigestVerifyInit_ex(context.get(), nullptr, nullptr, source.context, source.properties, key.get(), nullptr) != 1) {
    no_openssl();
  }
  return EVP_DigestVerify(context.get(), raw(signature), signature.size(), raw(text), text.size()) == 1;
}

std::string from_hex(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i + 1 < text.size(); i += 2) {
    unsigned int byte = 0;
    std::from_chars(text.data() + i, text.data() + i + 2, byte, 16);
    out.push_back(static_cast<char>(byte));
  }
  return out;
}

}  // namespace

NoteKeys make_note_keys(const std::string& name) {
  if (!is_name(name)) refuse("a name of a key without white space and plus signs");
  std::string seed(kKeyBytes, '\0');
  if (getentropy(seed.data(), seed.size()) != 0) {
    throw IoError("[note] Expected random bytes from the operating system, received an error. Check the kernel.");
  }
  const std::string bytes = public_half(private_key(seed));
  const std::string id = ledger::to_hex(key_id(name, bytes));
  NoteKeys keys{message(kPrivate, name, "+", id, "+", base64(kEd25519 + seed)),
                message(name, "+", id, "+", base64(kEd25519 + bytes))};
  OPENSSL_cleanse(seed.data(), seed.size());
  return keys;
}

std::string sign_note(const std::string& text, const std::string& signer) {
  check_text(text);
  if (!signer.starts_with(kPrivate)) refuse("a signer's key");
  const Key key = parse_key(std::string_view(signer).substr(kPrivate.size()));
  const Pkey secret = private_key(key.bytes);
  const std::string id = key_id(key.name, public_half(secret));
  if (ledger::to_hex(id) != key.id) refuse("a key whose hash fits");
  const Context context(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  std::string signature(kSignatureBytes, '\0');
  std::size_t size = signature.size();
  const OpensslSource source = openssl_source();
  if (!context || EVP_DigestSignInit_ex(context.get(), nullptr, nullptr, source.context, source.properties, secret.get(), nullptr) != 1 ||
      EVP_DigestSign(context.get(), reinterpret_cast<unsigned char*>(signature.data()), &size, raw(text), text.size()) != 1) {
    no_openssl();
  }
  return message(text, "\n", kDash, key.name, " ", base64(id + signature), "\n");
}

std::string open_note(const std::string& note, const std::string& verifier) {
  check_text(note);
  const Key key = parse_key(verifier);
  const std::string id = key_id(key.name, key.bytes);
  if (ledger::to_hex(id) != key.id) refuse("a key whose hash fits");
  // The last empty line ends the text.
  const std::size_t split = note.rfind("\n\n");
  if (split == note.npos) refuse("a note with signatures");
  std::string text = note.substr(0, split + 1);
  std::string_view lines = std::string_view(note).substr(split + 2);
  if (lines.empty()) refuse("a note with signatures");
  bool found = false;
  while (!lines.empty()) {
    const std::size_t end = lines.find('\n');
    const std::string_view line = lines.substr(0, end);
    lines.remove_prefix(end + 1);
    const std::size_t space = line.rfind(' ');
    if (!line.starts_with(kDash) || space < kDash.size()) refuse("signature lines after the text");
    if (line.substr(kDash.size(), space - kDash.size()) != key.name) continue;
    const std::string_view encoded = line.substr(space + 1);
    if (encoded.size() != 4 * ((kIdBytes + kSignatureBytes + 2) / 3)) continue;  // of another algorithm
    const std::string bytes = from_base64(encoded, kIdBytes + kSignatureBytes);
    if (bytes.substr(0, kIdBytes) != id) continue;
    if (!is_signed(text, bytes.substr(kIdBytes), key.bytes)) {
      throw LedgerError("[note] Expected a valid signature, received a bad one. The note was changed; do not trust it.");
    }
    found = true;
  }
  if (!found) throw LedgerError("[note] Expected a signature of this key, received none. Use the verifier of whoever signed.");
  return text;
}

std::string head_text(const std::string& ledger_id, const LedgerHead& head) {
  return message(kOrigin, ledger_id, "\n", head.sequence, "\n", base64(from_hex(head.hash)), "\n");
}

LedgerHead head_in(const std::string& text, const std::string& ledger_id) {
  const std::size_t first = text.find('\n');
  const std::size_t second = first == text.npos ? text.npos : text.find('\n', first + 1);
  if (second == text.npos || !text.starts_with(kOrigin) || text.find('\n', second + 1) != text.size() - 1) {
    refuse("three lines about a ledger");
  }
  LedgerHead head;
  const auto [end, error] = std::from_chars(text.data() + first + 1, text.data() + second, head.sequence);
  if (error != std::errc() || end != text.data() + second || head.sequence < 1) refuse("a sequence in the second line");
  head.hash = ledger::to_hex(from_base64(std::string_view(text).substr(second + 1, text.size() - second - 2), sizeof(ledger::Hash)));
  if (head_text(text.substr(kOrigin.size(), first - kOrigin.size()), head) != text) refuse("three lines about a ledger");
  if (text.substr(kOrigin.size(), first - kOrigin.size()) != ledger_id) {
    throw LedgerError("[note] Expected a note about this ledger, received one about another. Give the ledger it is about.");
  }
  return head;
}

}  // namespace hushgrad
