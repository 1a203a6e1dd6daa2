#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <optional>

#include "core/bind.h"
#include "dpcore/random/insecure_seed.h"
#include "dpcore/sampling/poisson.h"

namespace py = pybind11;

namespace hushgrad::python {
namespace {

// A sampler together with a generator of its own, so that no two Python objects or processes share a stream.
class OwningSampler {
 public:
  OwningSampler(std::int64_t population, double sampling_rate, std::optional<std::uint64_t> insecure_seed)
      : sampler_(population, sampling_rate) {
    if (insecure_seed) {
      insecure_ = std::make_unique<InsecureSeed>(*insecure_seed);
    } else {
      secure_ = std::make_unique<Csprng>();
    }
  }

  // Under the interpreter lock: the generator serves one thread at a time.
  std::vector<std::int64_t> draw() { return sampler_.draw(insecure_ ? insecure_->stream() : *secure_); }
  const PoissonSampler& sampler() const { return sampler_; }
  bool insecure() const { return insecure_ != nullptr; }

 private:
  PoissonSampler sampler_;
  std::unique_ptr<Csprng> secure_;
  std::unique_ptr<InsecureSeed> insecure_;
};

constexpr const char* kDoc =
    "Poisson batches: every record is in a batch independently with probability sampling_rate (rounded down "
    "to a\n"
    "multiple of 2^-64, so that charging sampling_rate never understates).\n"
    "\n"
    "population: records, >= 1. sampling_rate: in (0, 1]; 1 takes every record. Raises InvalidArgument "
    "otherwise.\n"
    "insecure_seed: makes the batches repeatable and the privacy void; tests only.\n"
    "Each object has its own cryptographically secure generator, which a forked child does not continue.";

}  // namespace

void bind_sampling(py::module_& m) {
  py::class_<OwningSampler>(m, "PoissonSampler", kDoc)
      .def(py::init<std::int64_t, double, std::optional<std::uint64_t>>(), py::arg("population"),
           py::arg("sampling_rate"), py::kw_only(), py::arg("insecure_seed") = py::none())
      .def("draw", &OwningSampler::draw,
           "The next batch: a list of ascending indices, possibly empty. Its members and its size are "
           "private data.")
      .def_property_readonly("population", [](const OwningSampler& s) { return s.sampler().population(); })
      .def_property_readonly("sampling_rate",
                             [](const OwningSampler& s) { return s.sampler().sampling_rate(); })
      .def_property_readonly("insecure", &OwningSampler::insecure, "True if made with insecure_seed.");
}

}  // namespace hushgrad::python
