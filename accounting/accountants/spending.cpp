#include "accounting/accountants/spending.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <utility>

#include "dpcore/error.h"

namespace hushgrad {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
// Beyond these a step spends next to nothing; clamping keeps every intermediate a normal double.
constexpr double kLargestNoise = 1e9;
constexpr double kSmallestSampling = 1e-12;

double up(double value) { return std::nextafter(value, kInfinity); }

double product_up(double a, double b) {
  const double product = a * b;
  return std::fma(a, b, -product) == 0 ? product : up(product);
}

double sum_up(double a, double b) {
  const double sum = a + b;
  return sum - a == b && sum - b == a ? sum : up(sum);
}

class Flattener {
 public:
  void add(const Event& event, double count) {
    if (count == 0) return;
    switch (event.kind()) {
      case EventKind::no_op: return;
      case EventKind::non_private: return add_exposure(1, count);
      case EventKind::gaussian: return add_gaussian(event.noise_multiplier(), count);
      case EventKind::self_composed:
        return add(event.inner(), product_up(count, static_cast<double>(event.count())));
      case EventKind::composed:
        for (const Event& part : event.events()) add(part, count);
        return;
      case EventKind::poisson_sampled: return add_sampled(event, count);
      case EventKind::unsupported:
      default: break;
    }
    throw Unsupported(message("[accounting] Expected events with a proven bound, received ", event.type_name(), " (",
                              event.reason(), "). Nothing can be claimed for this history."));
  }

  Spending take() {
    for (const auto& [key, count] : sampled_) {
      spending_.sampled.push_back({key.first, key.second, count});
    }
    return std::move(spending_);
  }

 private:
  void add_gaussian(double noise_multiplier, double count) {
    const double mu_squared = up(up(1 / product_up(noise_multiplier, noise_multiplier)));
    if (!(mu_squared < kInfinity)) return add_exposure(1, count);
    spending_.mu_squared = sum_up(spending_.mu_squared, product_up(mu_squared, count));
    if (!(spending_.mu_squared < kInfinity)) add_exposure(1, 1);
  }

  void add_exposure(double probability, double count) {
    spending_.log_unexposed += count * std::log1p(-probability);
  }

  void add_sampled(const Event& event, double count) {
    const double probability = event.sampling_probability();
    const Event& inner = event.inner();
    if (probability == 0) return;
    if (probability == 1) return add(inner, count);
    if (inner.kind() == EventKind::gaussian && inner.noise_multiplier() > 0) {
      return add_step(probability, inner.noise_multiplier(), count);
    }
    Flattener flattener;
    flattener.add(inner, 1);
    const Spending batch = flattener.take();
    if (batch.nothing()) return;
    if (batch.log_unexposed == -kInfinity) return add_exposure(probability, count);
    if (batch.sampled.empty() && batch.log_unexposed == 0) {
      return add_step(probability, std::nextafter(1 / std::sqrt(up(batch.mu_squared)), 0), count);
    }
    // A Poisson sample of a Poisson sample is a Poisson sample.
    if (batch.sampled.size() == 1 && batch.sampled[0].count == 1 && batch.mu_squared == 0 && batch.log_unexposed == 0) {
      const SampledGaussian& step = batch.sampled[0];
      return add_step(product_up(probability, step.sampling_probability), step.noise_multiplier, count);
    }
    throw Unsupported(message("[accounting] Expected PoissonSampledDpEvent over releases that use the whole batch, "
                              "received a composition that samples again, in ", inner.type_name(),
                              ". Record every step as its own PoissonSampledDpEvent."));
  }

  void add_step(double probability, double noise_multiplier, double count) {
    if (!(noise_multiplier > 0)) return add_exposure(probability, count);
    if (probability < kSmallestSampling || noise_multiplier > kLargestNoise) spending_.rounded_up = true;
    probability = std::max(probability, kSmallestSampling);
    noise_multiplier = std::min(noise_multiplier, kLargestNoise);
    double& total = sampled_[{probability, noise_multiplier}];
    total = sum_up(total, count);
  }

  Spending spending_;
  std::map<std::pair<double, double>, double> sampled_;
};

}  // namespace

Spending flatten(const Event& event) {
  Flattener flattener;
  flattener.add(event, 1);
  return flattener.take();
}

}  // namespace hushgrad
