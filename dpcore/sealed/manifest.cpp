#include "dpcore/sealed/manifest.h"

#include <algorithm>

#include <openssl/err.h>
#include <openssl/evp.h>

#include "dpcore/error.h"
#include "dpcore/keys/bytes.h"
#include "dpcore/keys/fips.h"

namespace hushgrad {
namespace {

using Format = ContainerFormat;

constexpr std::size_t kSignatureAt = sizeof(Sha384) + 2;
constexpr std::size_t kMacAt = Format::kTrailerBytes - Format::kMacBytes;
static_assert(kSignatureAt + Trailer::kMaxSignatureBytes == kMacAt);

Sha384 trailer_mac(std::span<const std::byte> trailer, const Manifest& manifest, const SecretBytes& data_key) {
  SecretBytes key(sizeof(Sha384));
  hkdf_expand_sha384(data_key.bytes(), text_bytes(Format::kManifestKeyLabel), key.bytes());
  std::vector<std::byte> covered = manifest.text();
  append(covered, trailer.first(kMacAt).subspan(sizeof(Sha384)));
  return hmac_sha384(key.bytes(), covered);
}

}  // namespace

SegmentDigest segment_digest(std::span<const std::byte> segment) {
  static Fetched<EVP_MD> sha256(EVP_MD_fetch, "SHA256");
  const EVP_MD* const algorithm = sha256.get();
  SegmentDigest digest;
  if (algorithm == nullptr || EVP_Digest(segment.data(), segment.size(), openssl_out(digest), nullptr, algorithm, nullptr) != 1) {
    ERR_clear_error();
    throw IoError("[manifest] Expected SHA-256 from OpenSSL, received an error. Check that its providers load.");
  }
  return digest;
}

std::vector<std::byte> Manifest::text() const {
  std::vector<std::byte> out;
  append(out, core_digest);
  append(out, floe_header);
  append_big_endian(out, segments, 8);
  append(out, table_digest);
  return out;
}

std::string Manifest::digest() const { return to_hex(sha384(text())); }

std::vector<std::byte> encode_trailer(const Manifest& manifest, std::span<const std::byte> signature,
                                      const SecretBytes& data_key) {
  if (signature.size() > Trailer::kMaxSignatureBytes) {
    throw InvalidArgument(message("[write_sealed] Expected a signature of at most ", Trailer::kMaxSignatureBytes,
                                  " bytes, received ", signature.size(), ". Use another kind of identity."));
  }
  std::vector<std::byte> out;
  append(out, manifest.table_digest);
  append_big_endian(out, signature.size(), 2);
  append(out, signature);
  const std::size_t used = out.size();
  out.resize(kMacAt);
  fill_random(std::span(out).subspan(used));
  append(out, trailer_mac(out, manifest, data_key));
  return out;
}

Trailer parse_trailer(std::span<const std::byte> bytes) {
  Trailer trailer;
  std::copy_n(bytes.begin(), sizeof(Sha384), trailer.table_digest.begin());
  const auto size = static_cast<std::size_t>(read_big_endian(bytes.subspan(sizeof(Sha384), 2)));
  const auto rest = bytes.first(kMacAt).subspan(kSignatureAt);
  if (size > Trailer::kMaxSignatureBytes) {
    throw SealError("[open_sealed] Expected a trailer as hushgrad writes it, received another. Use an intact copy.");
  }
  trailer.signature.assign(rest.begin(), rest.begin() + static_cast<std::ptrdiff_t>(size));
  return trailer;
}

void check_trailer(std::span<const std::byte> bytes, const Manifest& manifest, const SecretBytes& data_key) {
  if (equal_in_constant_time(trailer_mac(bytes, manifest, data_key), bytes.last(Format::kMacBytes))) return;
  throw SealError(
      "[open_sealed] Expected the trailer that was sealed, received one that was altered or belongs to another "
      "file. Use an intact copy.");
}

void check_signature(const Manifest& manifest, std::span<const std::byte> signature, const PublicKey& writer) {
  if (signature.empty()) {
    throw SealError(message("[verify_manifest] Expected a file signed by ", writer.id(),
                            ", received an unsigned one. Do not rely on who wrote it."));
  }
  if (writer.verify(std::string(Format::kSignatureContext), manifest.text(), signature)) return;
  throw SealError(message("[verify_manifest] Expected the signature of ", writer.id(),
                          ", received another: the file was changed after it was signed, or another identity "
                          "wrote it. Do not use it."));
}

}  // namespace hushgrad
