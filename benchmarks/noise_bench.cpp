// How long Noise::add takes for a model of the given size, and where the time goes. Prints one JSON object.
//
//   c++ -std=c++20 -O2 -I. benchmarks/noise_bench.cpp -Lbuild -lhushgrad_dpcore -Wl,-rpath,build -o
//   noise_bench OMP_NUM_THREADS=2 ./noise_bench [coordinates = 25000000] [repetitions = 20]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "dpcore/noise/gaussian_kernel.h"
#include "dpcore/noise/lattice_gaussian.h"
#include "dpcore/random/key_stream.h"

namespace {

using namespace hushgrad;

// The fastest of several runs: what the code needs when nobody disturbs it. Milliseconds.
template <typename Work>
double best_ms(int repetitions, Work&& work) {
  double best = 1e300;
  for (int i = 0; i < repetitions; ++i) {
    const auto start = std::chrono::steady_clock::now();
    work();
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
    best = std::min(best, took.count());
  }
  return best;
}

}  // namespace

int main(int argc, char** argv) {
  const std::size_t coordinates = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 25'000'000;
  const int repetitions = argc > 2 ? std::atoi(argv[2]) : 20;
  const char* threads = std::getenv("OMP_NUM_THREADS");

  Csprng rng;
  std::vector<float> sum(coordinates, 0.0f);
  const SumPart parts[] = {sum};
  const double add = best_ms(repetitions, [&] { internal::add_lattice_noise(parts, 1.0, 1.0, 1.0, rng); });

  // One thread, in first-level cache, a million coordinates in all.
  constexpr std::size_t pairs = 512, blocks = 1024;
  std::vector<std::uint64_t> words(internal::kWordsPerPair * pairs);
  std::vector<double> noise(2 * pairs);
  std::vector<float> values(2 * pairs, 0.0f);
  KeyStream stream(std::array<std::byte, 32>{}, std::array<std::byte, 16>{});
  const auto per_coordinate_ns = [&](auto&& work) {
    const double ms = best_ms(repetitions, [&] {
      for (std::size_t i = 0; i < blocks; ++i) work();
    });
    return ms * 1e6 / static_cast<double>(2 * pairs * blocks);
  };
  const double aes = per_coordinate_ns([&] { stream.fill(std::as_writable_bytes(std::span(words))); });
  const double gauss = per_coordinate_ns(
      [&] { internal::gaussian_kernel().noise(words.data(), pairs, 0x1p27, noise.data()); });
  const double store = per_coordinate_ns(
      [&] { internal::gaussian_kernel().add(values.data(), noise.data(), 2 * pairs, 0x1p-27, 1.0); });

  std::printf(
      "{\"benchmark\": \"noise\", \"coordinates\": %zu, \"threads\": \"%s\", \"repetitions\": %d, "
      "\"add_ms\": %.2f, \"add_ns_per_coordinate\": %.3f, "
      "\"one_thread_ns_per_coordinate\": {\"aes_256_ctr\": %.3f, \"gaussian\": %.3f, \"round_add_scale\": "
      "%.3f}}\n",
      coordinates, threads ? threads : "default", repetitions, add,
      add * 1e6 / static_cast<double>(coordinates), aes, gauss, store);
}
