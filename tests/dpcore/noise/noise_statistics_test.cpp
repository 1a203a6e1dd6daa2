// The noise against exact masses, both samplers, from 0.2 to 2^46 grid steps. Every p-value and z is printed; each fails on a
// correct program once in a million runs. HUSHGRAD_NOISE_SAMPLES sets the samples of each test (the long suite: 100000000).
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <vector>

#include "dpcore/noise/gaussian_kernel.h"
#include "dpcore/noise/lattice_gaussian.h"
#include "dpcore/random/statistics.h"

namespace hushgrad::internal {
namespace {

using testing::chi_square_p;
using testing::kFalseAlarm;
using testing::kNormalLimit;
using testing::normal_cdf;
using testing::normal_mass;

struct Setting {
  NoiseSampler sampler;
  double sigma;
};

const char* name_of(NoiseSampler sampler) { return sampler == NoiseSampler::fast ? "fast" : "exact"; }

std::ostream& operator<<(std::ostream& out, const Setting& s) { return out << name_of(s.sampler) << " " << s.sigma; }

std::int64_t samples_of(NoiseSampler sampler) {
  if (const char* asked = std::getenv("HUSHGRAD_NOISE_SAMPLES")) return std::strtoll(asked, nullptr, 10);
  return sampler == NoiseSampler::fast ? 4'000'000 : 1'000'000;
}

// Calls use(values) with portions of the noise until `samples` were seen.
void for_noise(const Setting& setting, std::int64_t samples, const std::function<void(std::span<const std::int64_t>)>& use) {
  Csprng rng;
  std::vector<std::int64_t> noise(1 << 20);
  for (std::int64_t left = samples; left > 0;) {
    const std::span<std::int64_t> portion = std::span(noise).first(static_cast<std::size_t>(std::min<std::int64_t>(left, 1 << 20)));
    integer_noise(portion, setting.sigma, rng, setting.sampler);
    use(portion);
    left -= static_cast<std::int64_t>(portion.size());
  }
}

double width_of(const Setting& setting) { return setting.sampler == NoiseSampler::fast ? dither_width(setting.sigma) : 1.0; }

void report(const Setting& s, const char* statistic, std::int64_t samples, double value) {
  std::printf("[  noise   ] %-5s sigma %-12.6g %-28s samples %-10lld %.4g\n", name_of(s.sampler), s.sigma, statistic,
              static_cast<long long>(samples), value);
}

void expect_p(const Setting& s, const char* statistic, std::int64_t samples, double p) {
  report(s, statistic, samples, p);
  EXPECT_GT(p, kFalseAlarm) << s;
}

void expect_z(const Setting& s, const char* statistic, std::int64_t samples, double z) {
  report(s, statistic, samples, z);
  EXPECT_LT(std::abs(z), kNormalLimit) << s;
}

class NoiseStatistics : public ::testing::TestWithParam<Setting> {};

// P(n) = P(n - width/2 <= sigma Z < n + width/2) / width, whichever the width (docs/proofs/lattice_gaussian.md, 3).
class SmallNoise : public NoiseStatistics {};
TEST_P(SmallNoise, HasTheExactMassOfEveryInteger) {
  const Setting s = GetParam();
  const std::int64_t samples = samples_of(s.sampler);
  const auto reach = static_cast<std::int64_t>(8 * s.sigma) + 4;
  std::vector<std::int64_t> counts(static_cast<std::size_t>(2 * reach + 1));
  for_noise(s, samples, [&](auto noise) {
    for (std::int64_t n : noise) {
      if (std::abs(n) <= reach) ++counts[static_cast<std::size_t>(n + reach)];
    }
  });
  std::vector<long double> masses;
  const long double width = width_of(s), sigma = s.sigma;
  for (std::int64_t n = -reach; n <= reach; ++n) {
    const auto x = static_cast<long double>(n);
    masses.push_back(normal_mass((x - width / 2) / sigma, (x + width / 2) / sigma) / width);
  }
  expect_p(s, "chi-square, every integer", samples, chi_square_p(counts, masses, samples));
}

constexpr NoiseSampler kFast = NoiseSampler::fast, kExact = NoiseSampler::exact;
INSTANTIATE_TEST_SUITE_P(Settings, SmallNoise,
                         ::testing::Values(Setting{kFast, 0.2}, Setting{kFast, 0.7}, Setting{kFast, 3.0}, Setting{kFast, 100.0},
                                           Setting{kFast, 1000.0}, Setting{kExact, 0.01}, Setting{kExact, 0.7}, Setting{kExact, 1.0},
                                           Setting{kExact, 3.3}, Setting{kExact, 100.0}, Setting{kExact, 1000.0}));

// P(N <= n): the mean of Phi((n + j) / sigma) over j in (-width/2, width/2], by its integral; the sum differs by less than
// 1 / (24 sigma^2). Without dither Phi((n + 1/2) / sigma).
long double at_most(std::int64_t n, const Setting& s) {
  const long double sigma = s.sigma, width = width_of(s), x = static_cast<long double>(n) + 0.5L;
  if (width == 1) return normal_cdf(x / sigma);
  const auto integral = [](long double z) { return z * normal_cdf(z) + std::exp(-z * z / 2) / std::sqrt(2 * std::acos(-1.0L)); };
  return sigma / width * (integral((x + width / 2) / sigma) - integral((x - width / 2) / sigma));
}

// 1200 cells out to six deviations, the lowest bits, moments.
class LargeNoise : public NoiseStatistics {};
TEST_P(LargeNoise, IsGaussianAboveAndUniformBelow) {
  const Setting s = GetParam();
  const std::int64_t samples = samples_of(s.sampler);
  constexpr int cells = 1200;
  const double cell = s.sigma / 100;
  std::vector<std::int64_t> counts(cells), low(1024);
  long double sum = 0, squares = 0;
  for_noise(s, samples, [&](auto noise) {
    for (std::int64_t n : noise) {
      const double at = std::floor(static_cast<double>(n) / cell) + cells / 2;
      if (at >= 0 && at < cells) ++counts[static_cast<std::size_t>(at)];
      ++low[static_cast<std::size_t>(n & 1023)];
      const double z = static_cast<double>(n) / s.sigma;
      sum += z;
      squares += z * z;
    }
  });
  std::vector<long double> masses;
  const auto first_of = [&](int i) { return static_cast<std::int64_t>(std::ceil((i - cells / 2) * cell)); };
  for (int i = 0; i < cells; ++i) masses.push_back(at_most(first_of(i + 1) - 1, s) - at_most(first_of(i) - 1, s));
  expect_p(s, "chi-square, 1200 cells", samples, chi_square_p(counts, masses, samples));
  expect_p(s, "chi-square, ten lowest bits", samples, chi_square_p(low, std::vector<long double>(1024, 0x1p-10L), samples));
  const auto n = static_cast<long double>(samples);
  const long double variance = 1 + (width_of(s) * width_of(s) - 1) / (12.0L * s.sigma * s.sigma) + 1 / (12.0L * s.sigma * s.sigma);
  expect_z(s, "mean", samples, static_cast<double>(sum / std::sqrt(n * variance)));
  expect_z(s, "mean square", samples, static_cast<double>((squares / n / variance - 1) * std::sqrt(n / 2)));
}

INSTANTIATE_TEST_SUITE_P(Settings, LargeNoise,
                         ::testing::Values(Setting{kFast, 0x1.7p14}, Setting{kFast, 0x1p20}, Setting{kFast, 0x1p25},
                                           Setting{kFast, 0x1.3p27}, Setting{kFast, 0x1p33}, Setting{kFast, 0x1p46},
                                           Setting{kExact, 0x1.7p14}, Setting{kExact, 0x1p25}, Setting{kExact, 0x1p46}));

// Both sides, out to six deviations.
class NoiseTails : public NoiseStatistics {};
TEST_P(NoiseTails, HaveTheirMass) {
  const Setting s = GetParam();
  const std::int64_t samples = (s.sampler == kFast ? 5 : 1) * samples_of(s.sampler);
  const std::array<double, 4> edges{3, 4, 5, 6};
  std::array<std::array<std::int64_t, 4>, 2> seen{};
  for_noise(s, samples, [&](auto noise) {
    for (std::int64_t n : noise) {
      for (std::size_t e = 0; e < edges.size(); ++e) {
        if (static_cast<double>(std::abs(n)) <= edges[e] * s.sigma) break;
        ++seen[n < 0 ? 0 : 1][e];
      }
    }
  });
  for (const auto& side : seen) {
    for (std::size_t e = 0; e < edges.size(); ++e) {
      const double expected = static_cast<double>(1 - at_most(static_cast<std::int64_t>(edges[e] * s.sigma), s)) * static_cast<double>(samples);
      char what[40];
      std::snprintf(what, sizeof(what), "beyond %.0f: %lld, expected %.1f", edges[e], static_cast<long long>(side[e]), expected);
      expect_p(s, what, samples, 2 * testing::poisson_p(side[e], expected));
    }
  }
}
INSTANTIATE_TEST_SUITE_P(Settings, NoiseTails, ::testing::Values(Setting{kFast, 0x1p26}, Setting{kExact, 0x1p26}, Setting{kExact, 50.0}));

// Values and squares of one noise vector against another.
void expect_independent(const Setting& s, const char* what, std::span<const double> a, std::span<const double> b) {
  const std::size_t n = std::min(a.size(), b.size());
  expect_z(s, (std::string(what) + ", values").c_str(), static_cast<std::int64_t>(n),
           testing::correlation_z(n, [&](auto i) { return a[i]; }, [&](auto i) { return b[i]; }));
  expect_z(s, (std::string(what) + ", squares").c_str(), static_cast<std::int64_t>(n),
           testing::correlation_z(n, [&](auto i) { return a[i] * a[i]; }, [&](auto i) { return b[i] * b[i]; }));
}

class NoiseIndependence : public NoiseStatistics {};

std::vector<double> draw(const Setting& s, std::size_t count, Csprng& rng) {
  std::vector<std::int64_t> noise(count);
  integer_noise(noise, s.sigma, rng, s.sampler);
  std::vector<double> z(count);
  std::transform(noise.begin(), noise.end(), z.begin(), [&](auto n) { return static_cast<double>(n) / s.sigma; });
  return z;
}

TEST_P(NoiseIndependence, OfCoordinatesStepsRanksAndResumes) {
  const Setting s = GetParam();
  const std::size_t count = s.sampler == kFast ? 1'000'000 : 300'000;
  Csprng rng, resumed;
  const std::vector<double> step = draw(s, count, rng), next_step = draw(s, count, rng), resume = draw(s, count, resumed);
  // Neighbours, the halves of a Box-Muller pair (512 apart within a block of 1024), blocks.
  for (std::size_t lag : {1u, 512u, 1024u}) expect_independent(s, "lag", std::span(step).subspan(lag), step);
  expect_independent(s, "next step", step, next_step);
  expect_independent(s, "after a resume", step, resume);

  // Two ranks that a launcher forked after the generator was made.
  const std::size_t bytes = 2 * count * sizeof(double);
  auto* shared = static_cast<double*>(mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  ASSERT_NE(shared, MAP_FAILED);
  for (std::size_t rank = 0; rank < 2; ++rank) {
    if (fork() == 0) {
      const std::vector<double> own = draw(s, count, rng);
      std::copy(own.begin(), own.end(), shared + rank * count);
      _exit(0);
    }
  }
  for (int rank = 0; rank < 2; ++rank) {
    int status = -1;
    wait(&status);
    EXPECT_EQ(status, 0);
  }
  const std::span<const double> one(shared, count), two(shared + count, count);
  expect_independent(s, "two ranks", one, two);
  expect_independent(s, "rank and parent", one, draw(s, count, rng));
  munmap(shared, bytes);
}
INSTANTIATE_TEST_SUITE_P(Settings, NoiseIndependence, ::testing::Values(Setting{kFast, 0x1p25}, Setting{kExact, 0x1p25}));

}  // namespace
}  // namespace hushgrad::internal
