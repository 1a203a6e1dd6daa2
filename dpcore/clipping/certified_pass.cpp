#include "dpcore/clipping/certified_pass.h"

#include <algorithm>
#include <cmath>

#include "dpcore/error.h"
#include "dpcore/random/aes_ctr.h"

namespace hushgrad {
namespace {

constexpr int kGridBits = 24;
constexpr int kAttempts = 64;               // each 2^-10 shorter than the last: 6 % in all
constexpr std::size_t kExactSquares = 4096;  // squares below 2^52 whose sum stays below 2^64

// Sum of squares, exactly. |steps| < 2^26.
unsigned __int128 squared_norm(std::span<const std::int32_t> steps) {
  unsigned __int128 total = 0;
  while (!steps.empty()) {
    const auto block = steps.first(std::min(steps.size(), kExactSquares));
    std::uint64_t sum = 0;
    for (std::int32_t s : block) sum += static_cast<std::uint64_t>(static_cast<std::int64_t>(s) * s);
    total += sum;
    steps = steps.subspan(block.size());
  }
  return total;
}

// A first guess only; the integers decide. Infinite or NaN exactly if a coordinate is: squares of float32 fit a double.
double guess_squared_norm(const CertifiedPass::Gradient& gradient) {
  double total = 0;
  for (std::span<const float> part : gradient) {
    for (float g : part) total += static_cast<double>(g) * static_cast<double>(g);
  }
  return total;
}

// Fills `steps`. False if their norm passes the sensitivity, or a coordinate is no number that could be within it.
bool round_towards_zero(const CertifiedPass::Gradient& gradient, double steps_per_unit, std::int64_t sensitivity,
                        std::span<std::int32_t> steps) {
  constexpr double most = 0x1p26;  // above every sensitivity; keeps the conversion defined
  bool in_range = true;
  std::int32_t* out = steps.data();
  for (std::span<const float> part : gradient) {
    for (float g : part) {
      const double exact = static_cast<double>(g) * steps_per_unit;
      const bool fine = std::fabs(exact) < most;  // false for NaN
      in_range = in_range && fine;
      *out++ = static_cast<std::int32_t>(fine ? exact : 0.0);
    }
  }
  const auto bound = static_cast<unsigned __int128>(sensitivity) * static_cast<unsigned __int128>(sensitivity);
  return in_range && squared_norm(steps) <= bound;
}

}  // namespace

CertifiedGrid::CertifiedGrid(double max_grad_norm) {
  if (!(max_grad_norm >= 0x1p-64 && max_grad_norm <= 0x1p64)) {
    throw InvalidArgument(message("[clipping] Expected max_grad_norm in [2^-64, 2^64], received ", max_grad_norm,
                                  ". Choose it near the usual gradient norm."));
  }
  grid = std::ldexp(1.0, std::ilogb(max_grad_norm) - kGridBits);
  sensitivity = static_cast<std::int64_t>(std::floor(max_grad_norm / grid));  // exact: grid is a power of two
}

CertifiedPass::CertifiedPass(double max_grad_norm, std::vector<std::size_t> part_sizes)
    : grid_(max_grad_norm), max_grad_norm_(max_grad_norm), part_sizes_(std::move(part_sizes)) {
  std::size_t dimension = 0;
  for (std::size_t size : part_sizes_) dimension += size;
  steps_.resize(dimension);
  discard();
}

CertifiedPass::~CertifiedPass() { wipe(std::as_writable_bytes(std::span(steps_))); }

void CertifiedPass::discard() {
  sums_.resize(part_sizes_.size());
  for (std::size_t p = 0; p < sums_.size(); ++p) sums_[p].assign(part_sizes_[p], 0);
}

void CertifiedPass::add(const Gradient& gradient) {
  bool fits = gradient.size() == part_sizes_.size();
  for (std::size_t p = 0; fits && p < gradient.size(); ++p) fits = gradient[p].size() == part_sizes_[p];
  if (!fits) {
    throw InvalidArgument("[clipping] Expected a gradient with the parts of this pass, received others. Pass one span a parameter.");
  }
  if (!internal::certified_steps(gradient, max_grad_norm_, grid_, steps_)) return;
  std::size_t at = 0;
  for (std::vector<std::uint64_t>& sum : sums_) {
    for (std::uint64_t& s : sum) s += static_cast<std::uint64_t>(static_cast<std::int64_t>(steps_[at++]));  // modulo 2^64
  }
}

CertifiedSum CertifiedPass::finish() {
  CertifiedSum sum(std::move(sums_), grid_);
  sums_.clear();
  discard();
  return sum;
}

bool internal::certified_steps(const CertifiedPass::Gradient& gradient, double max_grad_norm, const CertifiedGrid& grid,
                               std::span<std::int32_t> steps) {
  const double norm = std::sqrt(guess_squared_norm(gradient));
  if (!std::isfinite(norm)) return false;
  double steps_per_unit = (norm > max_grad_norm ? max_grad_norm / norm : 1.0) / grid.grid;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    if (round_towards_zero(gradient, steps_per_unit, grid.sensitivity, steps)) return true;
    steps_per_unit *= 1.0 - 0x1p-10;
  }
  return false;
}

}  // namespace hushgrad
