#include <pybind11/pybind11.h>

#include <string>

#include "core/bind.h"
#include "dpcore/error.h"
#include "dpcore/random/csprng.h"

namespace py = pybind11;

namespace hushgrad::python {
namespace {

py::bytes random_bytes(py::ssize_t size) {
  if (size < 0)
    throw InvalidArgument(message("[random_bytes] Expected size >= 0, received ", size, ". Pass a length."));
  std::string out(static_cast<std::size_t>(size), '\0');
  Csprng().fill(std::as_writable_bytes(std::span(out)));
  return py::bytes(out);
}

}  // namespace

// The generator itself stays in C++: Python objects can be pickled and copied, and a copied stream repeats.
void bind_random(py::module_& m) {
  m.def("random_bytes", &random_bytes, py::arg("size"),
        "`size` random bytes of a generator that was just seeded by the operating system; for identifiers "
        "and tests.");
}

}  // namespace hushgrad::python
