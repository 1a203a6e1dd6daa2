#include "dpcore/sealed/floe.h"

#include <algorithm>
#include <limits>

#include "dpcore/error.h"
#include "dpcore/keys/bytes.h"
#include "dpcore/keys/kdf.h"
#include "dpcore/sealed/gcm.h"

namespace hushgrad {
namespace {

constexpr std::size_t kParameterBytes = 10;
constexpr std::size_t kTagBytes = 32;
constexpr std::size_t kMessageKeyBytes = 48;
constexpr std::size_t kLengthBytes = 4;
constexpr std::uint64_t kNotFinal = 0xFFFFFFFF;

// AEAD id 0, KDF id 0, segment length, IV length.
std::vector<std::byte> encode_parameters(std::uint32_t segment_bytes) {
  std::vector<std::byte> out;
  append_big_endian(out, 0, 2);
  append_big_endian(out, segment_bytes, 4);
  append_big_endian(out, Floe::kIvBytes, 4);
  return out;
}

// Binds a segment to its place: position and whether it is the last.
std::vector<std::byte> place(std::uint64_t position, bool is_final) {
  std::vector<std::byte> out;
  append_big_endian(out, position, 8);
  append_big_endian(out, is_final ? 1 : 0, 1);
  return out;
}

[[noreturn]] void refuse_segment(std::uint64_t position) {
  throw SealError(
      message("[floe] Expected segment ", position,
              " as it was sealed, received one that was altered, cut or moved. Use an intact copy."));
}

}  // namespace

Floe::Floe(std::span<const std::byte> key, std::span<const std::byte> associated_data,
           std::uint32_t segment_bytes, std::span<const std::byte> iv)
    : segment_bytes_(segment_bytes),
      associated_data_(associated_data.begin(), associated_data.end()),
      message_key_(kMessageKeyBytes) {
  if (key.size() != kKeyBytes || associated_data.size() > kMaxAssociatedData ||
      segment_bytes <= kSegmentOverhead ||
      segment_bytes > static_cast<std::uint32_t>(std::numeric_limits<std::int32_t>::max())) {
    throw InvalidArgument(message("[floe] Expected a key of 32 bytes, at most ", kMaxAssociatedData,
                                  " bytes of associated data and segments of 33..2^31-1 bytes, received ",
                                  key.size(), ", ", associated_data.size(), " and ", segment_bytes, "."));
  }
  std::span<std::byte> header(header_);
  const std::vector<std::byte> parameters = encode_parameters(segment_bytes);
  std::copy(parameters.begin(), parameters.end(), header.begin());
  std::copy(iv.begin(), iv.end(), header.begin() + kParameterBytes);
  derive(key, text_bytes("HEADER_TAG:"), header.last(kTagBytes));
  derive(key, text_bytes("MESSAGE_KEY:"), message_key_.bytes());
}

// FLOE_KDF: HKDF-Expand over parameters, IV, purpose and associated data, in this order.
void Floe::derive(std::span<const std::byte> key, std::span<const std::byte> purpose,
                  std::span<std::byte> out) const {
  std::vector<std::byte> info;
  append(info, std::span(header_).first(kParameterBytes + kIvBytes));
  append(info, purpose);
  append(info, associated_data_);
  hkdf_expand_sha384(key, info, out);
}

Floe Floe::start_encryption(std::span<const std::byte> key, std::span<const std::byte> associated_data,
                            std::uint32_t segment_bytes) {
  std::array<std::byte, kIvBytes> iv;
  fill_random(iv);
  return Floe(key, associated_data, segment_bytes, iv);
}

Floe Floe::start_decryption(std::span<const std::byte> key, std::span<const std::byte> associated_data,
                            std::uint32_t segment_bytes, std::span<const std::byte> header) {
  if (header.size() != kHeaderBytes) {
    throw SealError(
        message("[floe] Expected a header of ", kHeaderBytes, " bytes, received ", header.size(), "."));
  }
  Floe floe(key, associated_data, segment_bytes, header.subspan(kParameterBytes, kIvBytes));
  if (!equal_in_constant_time(floe.header_, header)) {
    throw SealError(
        "[floe] Expected a payload header made with this key, context and segment length, received another. "
        "Use an intact copy of the file.");
  }
  return floe;
}

SecretBytes Floe::segment_key(std::uint64_t position) const {
  std::vector<std::byte> purpose;
  append(purpose, text_bytes("DEK:"));
  append_big_endian(purpose, position >> rotation_bits_ << rotation_bits_, 8);
  SecretBytes key(kKeyBytes);
  derive(message_key_.bytes(), purpose, key.bytes());
  return key;
}

void Floe::check_segment(std::uint64_t position, bool is_final, std::size_t plaintext,
                         std::size_t segment) const {
  const bool length_fits = is_final ? plaintext <= plaintext_bytes() : plaintext == plaintext_bytes();
  // The last position is kept for a final segment: a message that could not end would be no message.
  const bool position_fits = position < kMaxSegments - (is_final ? 0 : 1);
  if (length_fits && position_fits && segment == plaintext + kSegmentOverhead) return;
  throw InvalidArgument(message("[floe] Expected a position below 2^40 and ",
                                is_final ? "at most " : "exactly ", plaintext_bytes(),
                                " plaintext bytes in a segment 32 bytes longer, received position ", position,
                                ", ", plaintext, " and ", segment, " bytes."));
}

void Floe::encrypt_segment(std::uint64_t position, bool is_final, std::span<const std::byte> plaintext,
                           std::span<std::byte> segment) const {
  std::array<std::byte, kGcmIvBytes> iv;
  fill_random(iv);
  encrypt_segment_with_iv(position, is_final, iv, plaintext, segment);
}

void Floe::encrypt_segment_with_iv(std::uint64_t position, bool is_final, std::span<const std::byte> iv,
                                   std::span<const std::byte> plaintext, std::span<std::byte> segment) const {
  check_segment(position, is_final, plaintext.size(), segment.size());
  std::vector<std::byte> length;
  append_big_endian(length, is_final ? segment.size() : kNotFinal, kLengthBytes);
  std::copy(length.begin(), length.end(), segment.begin());
  std::copy(iv.begin(), iv.end(), segment.begin() + kLengthBytes);
  gcm_seal(segment_key(position).bytes(), iv, place(position, is_final), plaintext,
           segment.subspan(kLengthBytes + kGcmIvBytes, plaintext.size()), segment.last(kGcmTagBytes));
}

void Floe::decrypt_segment(std::uint64_t position, bool is_final, std::span<const std::byte> segment,
                           std::span<std::byte> plaintext) const {
  check_segment(position, is_final, plaintext.size(), segment.size());
  if (read_big_endian(segment.first(kLengthBytes)) != (is_final ? segment.size() : kNotFinal)) {
    refuse_segment(position);
  }
  const bool authentic = gcm_open(
      segment_key(position).bytes(), segment.subspan(kLengthBytes, kGcmIvBytes), place(position, is_final),
      segment.subspan(kLengthBytes + kGcmIvBytes, plaintext.size()), segment.last(kGcmTagBytes), plaintext);
  if (!authentic) refuse_segment(position);
}

std::vector<std::byte> floe_encrypt(std::span<const std::byte> key,
                                    std::span<const std::byte> associated_data, std::uint32_t segment_bytes,
                                    std::span<const std::byte> plaintext) {
  const Floe floe = Floe::start_encryption(key, associated_data, segment_bytes);
  const std::size_t room = floe.plaintext_bytes();
  const std::size_t segments = std::max<std::size_t>(1, (plaintext.size() + room - 1) / room);
  std::vector<std::byte> out(Floe::kHeaderBytes + plaintext.size() + segments * Floe::kSegmentOverhead);
  std::copy(floe.header().begin(), floe.header().end(), out.begin());
  std::span<std::byte> rest = std::span(out).subspan(Floe::kHeaderBytes);
  for (std::size_t i = 0; i < segments; ++i) {
    const auto part = plaintext.subspan(i * room, std::min(room, plaintext.size() - i * room));
    floe.encrypt_segment(i, i + 1 == segments, part, rest.first(part.size() + Floe::kSegmentOverhead));
    rest = rest.subspan(part.size() + Floe::kSegmentOverhead);
  }
  return out;
}

std::vector<std::byte> floe_decrypt(std::span<const std::byte> key,
                                    std::span<const std::byte> associated_data, std::uint32_t segment_bytes,
                                    std::span<const std::byte> sealed) {
  const Floe floe = Floe::start_decryption(key, associated_data, segment_bytes,
                                           sealed.first(std::min(sealed.size(), Floe::kHeaderBytes)));
  std::span<const std::byte> rest = sealed.subspan(Floe::kHeaderBytes);
  std::vector<std::byte> out(rest.size());
  std::size_t written = 0;
  // The length of the whole message decides which segment is the last; a cut or an addition makes another one
  // the last, which then fails to authenticate.
  for (std::uint64_t position = 0;; ++position) {
    const bool is_final = rest.size() <= segment_bytes;
    const auto segment = rest.first(is_final ? rest.size() : segment_bytes);
    if (segment.size() < Floe::kSegmentOverhead) refuse_segment(position);
    const std::size_t size = segment.size() - Floe::kSegmentOverhead;
    floe.decrypt_segment(position, is_final, segment, std::span(out).subspan(written, size));
    written += size;
    rest = rest.subspan(segment.size());
    if (is_final) break;
  }
  out.resize(written);
  return out;
}

}  // namespace hushgrad
