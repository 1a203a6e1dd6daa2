#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>

#include "core/bind.h"
#include "dpcore/error.h"
#include "dpcore/noise/lattice_gaussian.h"
#include "dpcore/noise/precision.h"
#include "dpcore/random/insecure_seed.h"

namespace py = pybind11;

namespace hushgrad::python {
namespace {

SumPart float32_span(const py::buffer_info& info) {
  if (info.format != py::format_descriptor<float>::format() || info.ndim != 1 || info.readonly ||
      (info.size > 0 && info.strides[0] != static_cast<py::ssize_t>(sizeof(float)))) {
    throw InvalidArgument(
        message("[noise] Expected a writable, contiguous, one-dimensional float32 buffer, received ",
                info.ndim, " dimensions of format ", info.format, ". Use array.array('f', ...)."));
  }
  return {static_cast<float*>(info.ptr), static_cast<std::size_t>(info.size)};
}

void add_lattice_noise_for_testing(const py::buffer& values, double noise_multiplier, double max_grad_norm,
                                   double scale, bool exact, std::optional<std::uint64_t> insecure_seed) {
  const NoiseSampler sampler = exact ? NoiseSampler::exact : NoiseSampler::fast;
  const py::buffer_info info = values.request();
  const SumPart parts[] = {float32_span(info)};
  if (insecure_seed) {
    InsecureSeed seed(*insecure_seed);
    internal::add_lattice_noise(parts, max_grad_norm, noise_multiplier, scale, seed.stream(), sampler);
    return;
  }
  Csprng rng;
  internal::add_lattice_noise(parts, max_grad_norm, noise_multiplier, scale, rng, sampler);
}

constexpr const char* kAddDoc =
    "Adds lattice Gaussian noise to a float32 buffer in place, for statistics in tests. Nothing was clipped "
    "and nothing\n"
    "is charged: the result carries NO PRIVACY GUARANTEE. Training adds its noise in C++.\n"
    "\n"
    "values: [n] float32, writable. noise_multiplier: >= 0. max_grad_norm: the l2 sensitivity. scale: > 0.\n"
    "exact: the rounded Gaussian itself, in integers; tens of times as slow.\n"
    "insecure_seed: makes the noise repeatable. Raises InvalidArgument, or PrivacyViolation for a value that "
    "is not\n"
    "finite; `values` is zero afterwards.";

constexpr const char* kLatticeDoc =
    "The public grid and noise for a sum with the given l2 sensitivity and number of coordinates.\n"
    "\n"
    "grid: a power of two with sqrt(dimension) * grid <= 2^-14 * l2_sensitivity. noise_stddev: at least\n"
    "noise_multiplier * (l2_sensitivity + sqrt(dimension) * grid), which pays for rounding. Both in units of "
    "the sum.\n"
    "Raises InvalidArgument outside noise_multiplier 0 or [2^-32, 2^32], l2_sensitivity [2^-64, 2^64], "
    "dimension <= 2^48.";

constexpr const char* kPrecisionDoc =
    "(order, divergence, failure) of one step's fast noise on parameters of these sizes: outside an event of probability\n"
    "failure, its Renyi divergence of that order from the ideal noise is at most divergence. Zeros where no noise is drawn.";

}  // namespace

void bind_noise(py::module_& m) {
  py::class_<Lattice>(m, "Lattice", "Spacing and noise of the lattice Gaussian, in the units of the sum.")
      .def_readonly("grid", &Lattice::grid)
      .def_readonly("noise_stddev", &Lattice::noise_stddev);
  m.def("fast_noise_precision",
        [](double noise_multiplier, const std::vector<std::size_t>& part_sizes) {
          const NoisePrecision precision = fast_noise_precision(noise_multiplier, part_sizes);
          return py::make_tuple(precision.order, precision.divergence, precision.failure);
        },
        py::arg("noise_multiplier"), py::arg("part_sizes"), kPrecisionDoc);
  m.def("choose_lattice", &choose_lattice, py::arg("noise_multiplier"), py::arg("l2_sensitivity"),
        py::arg("dimension"), kLatticeDoc);
  m.def("add_lattice_noise_for_testing", &add_lattice_noise_for_testing, py::arg("values"),
        py::arg("noise_multiplier"), py::arg("max_grad_norm"), py::arg("scale") = 1.0, py::kw_only(),
        py::arg("exact") = false, py::arg("insecure_seed") = py::none(), kAddDoc);
}

}  // namespace hushgrad::python
