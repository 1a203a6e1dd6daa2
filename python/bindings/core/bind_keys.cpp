// dpcore/keys for hushgrad.keys. Key material never crosses into Python.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "core/bind.h"
#include "dpcore/keys/keyring.h"

namespace hushgrad::python {

namespace py = pybind11;
using Unlocked = py::call_guard<py::gil_scoped_release>;

void bind_keys(py::module_& m) {
  py::class_<Keyring>(m, "Keyring", "A local keyring; use hushgrad.keys.Keyring instead.")
      .def(py::init(&Keyring::open), py::arg("path"), Unlocked())
      .def_static("create", &Keyring::create, py::arg("path"), Unlocked())
      .def_property_readonly("path", &Keyring::path)
      .def("create_key", &Keyring::create_key, py::arg("dataset"), Unlocked())
      .def("rotate_key", &Keyring::rotate_key, py::arg("dataset"), Unlocked())
      .def("has_key", &Keyring::has_key, py::arg("dataset"))
      .def("list", [](const Keyring& self) {
        py::list rows;
        for (const KeyInfo& key : self.list()) {
          rows.append(py::make_tuple(key.id, key.dataset, key.created, key.state));
        }
        return rows;
      });
}

}  // namespace hushgrad::python
