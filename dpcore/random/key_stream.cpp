#include "dpcore/random/key_stream.h"

#include <algorithm>
#include <cstring>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define HUSHGRAD_AES __attribute__((target("aes,sse4.1")))
#define HUSHGRAD_VAES_256 __attribute__((target("vaes,aes,avx2,sse4.1")))
#define HUSHGRAD_VAES_512 __attribute__((target("vaes,aes,avx512f,avx512bw,sse4.1")))
#endif

namespace hushgrad {
namespace {

std::uint64_t big_endian(std::span<const std::byte, 8> bytes) {
  std::uint64_t value = 0;
  for (std::byte b : bytes) value = value << 8 | std::to_integer<std::uint64_t>(b);
  return value;
}

#if defined(HUSHGRAD_AES)

// FIPS 197, section 5.2: the words of one more round key, each the sum of the words before it and of a substituted one.
HUSHGRAD_AES __m128i prefix_sums(__m128i key) {
  key = _mm_xor_si128(key, _mm_slli_si128(key, 4));
  return _mm_xor_si128(key, _mm_slli_si128(key, 8));
}

template <int Rcon>
HUSHGRAD_AES void next_two(__m128i* keys) {
  const __m128i rotated = _mm_shuffle_epi32(_mm_aeskeygenassist_si128(keys[1], Rcon), 0xff);
  keys[2] = _mm_xor_si128(prefix_sums(keys[0]), rotated);
  if constexpr (Rcon != 0x40) {  // the fifteenth key is the last
    const __m128i substituted = _mm_shuffle_epi32(_mm_aeskeygenassist_si128(keys[2], 0), 0xaa);
    keys[3] = _mm_xor_si128(prefix_sums(keys[1]), substituted);
  }
}

HUSHGRAD_AES void expand_key(const std::byte* key, __m128i* keys) {
  keys[0] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(key));
  keys[1] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(key + 16));
  next_two<0x01>(keys);
  next_two<0x02>(keys + 2);
  next_two<0x04>(keys + 4);
  next_two<0x08>(keys + 6);
  next_two<0x10>(keys + 8);
  next_two<0x20>(keys + 10);
  next_two<0x40>(keys + 12);
}

// The plain broadcast of GCC 12 warns of an uninitialised register (GCC bug 105593); this one compiles to the same.
HUSHGRAD_VAES_512 __m512i four_of(__m128i x) { return _mm512_maskz_broadcast_i32x4(0xffff, x); }

// The block counter + i: big-endian halves in the order of memory, as two lanes of native integers.
HUSHGRAD_VAES_512 __m512i four_counters(std::uint64_t high, std::uint64_t low) {
  std::uint64_t lanes[8];
  for (std::uint64_t i = 0; i < 4; ++i) {
    lanes[2 * i] = high + (low + i < low ? 1 : 0);
    lanes[2 * i + 1] = low + i;
  }
  return _mm512_loadu_si512(lanes);
}

HUSHGRAD_VAES_512 void encrypt_chunks_512(const __m128i* keys, std::uint64_t& high, std::uint64_t& low, std::byte* out,
                                          std::size_t chunks) {
  const __m512i swap = four_of(_mm_set_epi8(8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
  const __m512i four = four_of(_mm_set_epi64x(4, 0));
  __m512i counter = four_counters(high, low);
  for (std::size_t c = 0; c < chunks; ++c, out += 256) {
    __m512i block[4];
    const bool carries = low + 20 < low;  // this chunk or the first counters of the next
    for (std::uint64_t i = 0; i < 4; ++i) {
      if (carries) counter = four_counters(high + (low + 4 * i < low ? 1 : 0), low + 4 * i);
      block[i] = _mm512_shuffle_epi8(counter, swap);
      counter = _mm512_add_epi64(counter, four);
    }
    if (low + 16 < low) ++high;
    low += 16;
    if (carries) counter = four_counters(high, low);
    __m512i key = four_of(keys[0]);
    for (__m512i& b : block) b = _mm512_xor_si512(b, key);
    for (int round = 1; round < 14; ++round) {
      key = four_of(keys[round]);
      for (__m512i& b : block) b = _mm512_aesenc_epi128(b, key);
    }
    key = four_of(keys[14]);
    for (int i = 0; i < 4; ++i) _mm512_storeu_si512(out + 64 * i, _mm512_aesenclast_epi128(block[i], key));
  }
}

HUSHGRAD_VAES_256 __m256i two_counters(std::uint64_t high, std::uint64_t low) {
  const std::uint64_t next = low + 1;
  return _mm256_set_epi64x(static_cast<long long>(next), static_cast<long long>(high + (next < low ? 1 : 0)), static_cast<long long>(low),
                           static_cast<long long>(high));
}

// The same with half the register.
HUSHGRAD_VAES_256 void encrypt_chunks_256(const __m128i* keys, std::uint64_t& high, std::uint64_t& low, std::byte* out,
                                          std::size_t chunks) {
  const __m256i swap = _mm256_broadcastsi128_si256(_mm_set_epi8(8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
  const __m256i two = _mm256_set_epi64x(2, 0, 2, 0);
  for (std::size_t c = 0; c < chunks; ++c, out += 256) {
    __m256i block[8], counter = two_counters(high, low);
    const bool carries = low + 16 < low;  // within this chunk
    for (std::uint64_t i = 0; i < 8; ++i) {
      if (carries) counter = two_counters(high + (low + 2 * i < low ? 1 : 0), low + 2 * i);
      block[i] = _mm256_shuffle_epi8(counter, swap);
      counter = _mm256_add_epi64(counter, two);
    }
    if (carries) ++high;
    low += 16;
    __m256i key = _mm256_broadcastsi128_si256(keys[0]);
    for (__m256i& b : block) b = _mm256_xor_si256(b, key);
    for (int round = 1; round < 14; ++round) {
      key = _mm256_broadcastsi128_si256(keys[round]);
      for (__m256i& b : block) b = _mm256_aesenc_epi128(b, key);
    }
    key = _mm256_broadcastsi128_si256(keys[14]);
    for (int i = 0; i < 8; ++i) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 32 * i), _mm256_aesenclast_epi128(block[i], key));
    }
  }
}

#endif

}  // namespace

const std::vector<KeyStream::Cipher>& KeyStream::ciphers() {
  static const std::vector<Cipher> found = [] {
    std::vector<Cipher> ciphers;
#if defined(HUSHGRAD_AES)
    const bool vaes = __builtin_cpu_supports("vaes") && __builtin_cpu_supports("aes") && __builtin_cpu_supports("sse4.1");
    if (vaes && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")) ciphers.push_back(Cipher::vaes_512);
    if (vaes && __builtin_cpu_supports("avx2")) ciphers.push_back(Cipher::vaes_256);
#endif
    ciphers.push_back(Cipher::openssl);
    return ciphers;
  }();
  return found;
}

std::string_view KeyStream::name_of(Cipher cipher) {
  switch (cipher) {
    case Cipher::vaes_512: return "VAES, 512 bits";
    case Cipher::vaes_256: return "VAES, 256 bits";
    case Cipher::openssl: return "OpenSSL";
  }
  return "unknown";
}

KeyStream::KeyStream(AesCtr::Key key, AesCtr::Counter counter, Cipher cipher) : cipher_(cipher) {
  if (cipher == Cipher::openssl) {
    portable_.emplace(key, counter);
    return;
  }
#if defined(HUSHGRAD_AES)
  expand_key(key.data(), reinterpret_cast<__m128i*>(keys_.bytes.data()));
#endif
  seek(counter);
}

KeyStream::~KeyStream() {
  wipe(keys_.bytes);
  wipe(buffer_);
}

void KeyStream::seek(AesCtr::Counter counter) {
  if (portable_) return portable_->seek(counter);
  high_ = big_endian(counter.first<8>());
  low_ = big_endian(counter.last<8>());
  used_ = kChunk;
}

void KeyStream::generate(std::byte* out, std::size_t chunks) {
#if defined(HUSHGRAD_AES)
  const auto* keys = reinterpret_cast<const __m128i*>(keys_.bytes.data());
  (cipher_ == Cipher::vaes_512 ? encrypt_chunks_512 : encrypt_chunks_256)(keys, high_, low_, out, chunks);
#else
  (void)out, (void)chunks;
#endif
}

void KeyStream::fill(std::span<std::byte> out) {
  if (portable_) return portable_->fill(out);
  while (!out.empty()) {
    if (used_ == kChunk && out.size() >= kChunk) {
      const std::size_t chunks = out.size() / kChunk;
      generate(out.data(), chunks);
      out = out.subspan(chunks * kChunk);
      continue;
    }
    if (used_ == kChunk) {
      generate(buffer_.data(), 1);
      used_ = 0;
    }
    const std::size_t size = std::min(out.size(), kChunk - used_);
    std::memcpy(out.data(), buffer_.data() + used_, size);
    used_ += size;
    out = out.subspan(size);
  }
}

}  // namespace hushgrad
