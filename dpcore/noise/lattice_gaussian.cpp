#include "dpcore/noise/lattice_gaussian.h"

#include <omp.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cfloat>
#include <cmath>
#include <exception>
#include <memory>
#include <optional>

#include "dpcore/error.h"
#include "dpcore/noise/exact_gaussian.h"
#include "dpcore/noise/far_pairs.h"
#include "dpcore/noise/gaussian_kernel.h"
#include "dpcore/random/key_stream.h"
#include "dpcore/random/word_stream.h"

namespace hushgrad {
namespace internal {
namespace {

constexpr std::size_t kBlockPairs = 512;         // words, noise and values of a block fit a first-level cache
constexpr std::size_t kTileCoordinates = 16384;  // what one counter range serves

struct Scratch {
  std::array<std::uint64_t, kWordsPerPair * kBlockPairs> words;
  std::array<double, 2 * kBlockPairs> noise;
  // Whoever finds the noise can take it off the release.
  ~Scratch() {
    wipe(std::as_writable_bytes(std::span(words)));
    wipe(std::as_writable_bytes(std::span(noise)));
  }
};

// Noise for the next `count` <= 2 * kBlockPairs coordinates, in scratch.noise.
template <typename Source>
void next_exact_block(Source& source, std::size_t count, double sigma_units, Scratch& scratch) {
  const ExactGaussian gaussian(sigma_units);
  WordStream words(source);
  for (std::size_t i = 0; i < count; ++i) scratch.noise[i] = static_cast<double>(gaussian.draw(words));
}

template <typename Source>
void next_block(Source& source, std::size_t count, double sigma_units, NoiseSampler sampler, Scratch& scratch) {
  if (sampler == NoiseSampler::exact) return next_exact_block(source, count, sigma_units, scratch);
  const std::size_t pairs = (count + 1) / 2;
  const auto words = std::span(scratch.words).first(kWordsPerPair * pairs);
  source.fill(std::as_writable_bytes(words));
  gaussian_kernel().noise(words.data(), pairs, sigma_units, scratch.noise.data());
  redraw_far_pairs(words, sigma_units, std::span(scratch.noise).first(2 * pairs), [&] {
    std::uint64_t word = 0;
    source.fill(std::as_writable_bytes(std::span(&word, 1)));
    return word;
  });
}

// Calls block(offset, count) until size coordinates are covered.
template <typename Block>
void for_each_block(std::size_t size, Block&& block) {
  constexpr std::size_t step = 2 * kBlockPairs;
  for (std::size_t offset = 0; offset < size; offset += step) block(offset, std::min(step, size - offset));
}

std::vector<SumPart> tiles_of(std::span<const SumPart> parts) {
  std::vector<SumPart> tiles;
  for (SumPart part : parts) {
    while (!part.empty()) {
      tiles.push_back(part.first(std::min(part.size(), kTileCoordinates)));
      part = part.subspan(tiles.back().size());
    }
  }
  return tiles;
}

// Tile number in the upper half, blocks within the tile in the lower: 2^64 blocks a tile, so ranges never
// meet.
std::array<std::byte, 16> counter_of(std::uint64_t tile) {
  std::array<std::byte, 16> counter{};
  for (std::size_t i = 0; i < 8; ++i) counter[i] = static_cast<std::byte>(tile >> (56 - 8 * i));
  return counter;
}

class CallKey {
 public:
  explicit CallKey(Csprng& rng) {
    rng.reseed();
    rng.fill(bytes_);
  }
  ~CallKey() { wipe(bytes_); }
  CallKey(const CallKey&) = delete;
  CallKey& operator=(const CallKey&) = delete;
  AesCtr::Key bytes() const { return bytes_; }

 private:
  std::array<std::byte, 32> bytes_;
};

// Runs make_worker() once on every thread, then the worker on one tile after the other: whoever is free takes
// the next, so that a thread the system holds up does not hold up the step. The first exception comes out on
// this side.
template <typename MakeWorker>
void in_parallel(std::size_t tiles, MakeWorker&& make_worker) {
  std::atomic<std::size_t> next{0};
  std::exception_ptr failure;
  const auto threads = std::min<std::size_t>(tiles, static_cast<std::size_t>(omp_get_max_threads()));
#pragma omp parallel num_threads(static_cast<int>(std::max<std::size_t>(threads, 1)))
  {
    try {
      auto worker = make_worker();
      for (std::size_t tile = next++; tile < tiles; tile = next++) worker(tile);
    } catch (...) {
#pragma omp critical(hushgrad_noise_failure)
      failure = std::current_exception();
    }
  }
  if (failure) std::rethrow_exception(failure);
}

bool add_to_tiles(const std::vector<SumPart>& tiles, const Lattice& lattice, double scale,
                  const CallKey& key, NoiseSampler sampler) {
  std::atomic<bool> finite{true};
  const double sigma_units = lattice.noise_stddev / lattice.grid;
  in_parallel(tiles.size(), [&] {
    return [&, stream = std::make_unique<KeyStream>(key.bytes(), counter_of(0)),
            scratch = std::make_unique<Scratch>()](std::size_t t) mutable {
      stream->seek(counter_of(t));
      for_each_block(tiles[t].size(), [&](std::size_t offset, std::size_t count) {
        next_block(*stream, count, sigma_units, sampler, *scratch);
        float* values = tiles[t].data() + offset;
        if (!gaussian_kernel().add(values, scratch->noise.data(), count, lattice.grid, scale)) finite = false;
      });
    };
  });
  return finite;
}

bool scale_tiles(const std::vector<SumPart>& tiles, double scale) {
  std::atomic<bool> finite{true};
  in_parallel(tiles.size(), [&] {
    return [&](std::size_t t) {
      if (!scale_only(tiles[t].data(), tiles[t].size(), scale)) finite = false;
    };
  });
  return finite;
}

void check_scale(double scale) {
  if (std::isfinite(scale) && scale > 0.0) return;
  throw InvalidArgument(
      message("[noise] Expected scale finite and > 0, received ", scale, ". Use 1 / expected_batch_size."));
}

void check_range(double noise_stddev, double scale) {
  // Thirty-six standard deviations are more than the sampler reaches.
  if (36.0 * noise_stddev * scale < FLT_MAX) return;
  throw InvalidArgument(message("[noise] Expected noise within float32, received a standard deviation of ",
                                noise_stddev * scale,
                                " after scaling. Lower max_grad_norm, noise_multiplier or scale."));
}

bool add_or_scale(std::span<const SumPart> parts, double l2_sensitivity, double noise_multiplier,
                  double scale, Csprng& rng, NoiseSampler sampler) {
  check_scale(scale);
  const std::vector<SumPart> tiles = tiles_of(parts);
  if (noise_multiplier == 0.0) return scale_tiles(tiles, scale);
  std::uint64_t dimension = 0;
  for (const SumPart& part : parts) dimension += part.size();
  const Lattice lattice = choose_lattice(noise_multiplier, l2_sensitivity, dimension);
  check_range(lattice.noise_stddev, scale);
  return add_to_tiles(tiles, lattice, scale, CallKey(rng), sampler);
}

}  // namespace

void add_lattice_noise(std::span<const SumPart> parts, double l2_sensitivity, double noise_multiplier,
                       double scale, Csprng& rng, NoiseSampler sampler) {
  try {
    if (add_or_scale(parts, l2_sensitivity, noise_multiplier, scale, rng, sampler)) return;
    throw PrivacyViolation(
        "[noise] Expected a clipped sum that is finite and stays so in float32, received one that does not. "
        "The step "
        "was discarded; look for overflow in clipping or for a loss scale that was not removed.");
  } catch (...) {
    for (const SumPart& part : parts) std::fill(part.begin(), part.end(), 0.0f);
    throw;
  }
}

void integer_noise(std::span<std::int64_t> out, double sigma_units, Csprng& rng, NoiseSampler sampler) {
  Scratch scratch;
  for_each_block(out.size(), [&](std::size_t offset, std::size_t count) {
    next_block(rng, count, sigma_units, sampler, scratch);
    for (std::size_t i = 0; i < count; ++i) out[offset + i] = static_cast<std::int64_t>(scratch.noise[i]);
  });
}

}  // namespace internal

namespace {

using IntegerPart = std::span<const std::uint64_t>;

// Noise for one tile of a certified sum.
void add_exact(IntegerPart sum, const std::optional<ExactGaussian>& gaussian, double step, KeyStream& stream, float* out) {
  WordStream words(stream);
  for (std::size_t i = 0; i < sum.size(); ++i) {
    const std::uint64_t noise = gaussian ? static_cast<std::uint64_t>(gaussian->draw(words)) : 0;
    out[i] = static_cast<float>(static_cast<double>(static_cast<std::int64_t>(sum[i] + noise)) * step);
  }
}

std::optional<ExactGaussian> certified_gaussian(double noise_multiplier, std::int64_t sensitivity) {
  if (noise_multiplier == 0.0) return std::nullopt;
  if (!(noise_multiplier >= 0x1p-32 && noise_multiplier <= 0x1p21)) {
    throw InvalidArgument(message("[noise] Expected noise_multiplier 0 or in [2^-32, 2^21], received ", noise_multiplier,
                                  ". Calibrate it from the privacy target."));
  }
  // One operation, rounded up by more than it can lose.
  return ExactGaussian(noise_multiplier * static_cast<double>(sensitivity) * (1.0 + 0x1p-51));
}

}  // namespace

NoisySum Noise::add(CertifiedSum&& sum, double noise_multiplier, double scale, Csprng& rng, std::vector<SumPart> out) {
  const std::vector<std::vector<std::uint64_t>> parts = std::move(sum.parts_);
  internal::check_scale(scale);
  bool fits = parts.size() == out.size();
  for (std::size_t p = 0; fits && p < parts.size(); ++p) fits = parts[p].size() == out[p].size();
  if (!fits) throw InvalidArgument("[noise] Expected one output part of equal size for each part of the sum, received others.");
  const auto gaussian = certified_gaussian(noise_multiplier, sum.grid().sensitivity);
  internal::check_range(noise_multiplier * static_cast<double>(sum.grid().sensitivity) * sum.grid().grid, scale);

  struct Tile {
    IntegerPart sum;
    float* out;
  };
  std::vector<Tile> tiles;
  for (std::size_t p = 0; p < parts.size(); ++p) {
    for (std::size_t at = 0; at < parts[p].size(); at += internal::kTileCoordinates) {
      tiles.push_back({IntegerPart(parts[p]).subspan(at, std::min(internal::kTileCoordinates, parts[p].size() - at)), out[p].data() + at});
    }
  }
  const internal::CallKey key(rng);
  const double step = sum.grid().grid * scale;
  internal::in_parallel(tiles.size(), [&] {
    return [&, stream = std::make_unique<KeyStream>(key.bytes(), internal::counter_of(0))](std::size_t t) {
      stream->seek(internal::counter_of(t));
      add_exact(tiles[t].sum, gaussian, step, *stream, tiles[t].out);
    };
  });
  return NoisySum(std::move(out));
}

NoisySum Noise::add(ClippedSum&& sum, double noise_multiplier, double scale, Csprng& rng, NoiseSampler sampler) {
  const double l2_sensitivity = sum.l2_sensitivity();
  std::vector<SumPart> parts = std::move(sum.parts_);
  internal::add_lattice_noise(parts, l2_sensitivity, noise_multiplier, scale, rng, sampler);
  return NoisySum(std::move(parts));
}

}  // namespace hushgrad
