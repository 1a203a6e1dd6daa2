// dpcore/keys for hushgrad.keys. Key material crosses into Python only for providers that are written there.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bind_provider.h"
#include "core/bind.h"
#include "core/python_key_provider.h"
#include "dpcore/keys/kdf.h"
#include "dpcore/keys/keyring.h"

namespace hushgrad::python {

namespace py = pybind11;
using Unlocked = py::call_guard<py::gil_scoped_release>;

void bind_keys(py::module_& m) {
  py::class_<KeyProvider, PythonKeyProvider>(m, "KeyProvider", "Where keys are; use hushgrad.keys.KeyProvider instead.")
      .def(py::init<>())
      .def("_capsule", [](const KeyProvider& self) { return capsule_of(self); });
  py::class_<Keyring, KeyProvider>(m, "Keyring", "A local keyring; use hushgrad.keys.Keyring instead.")
      .def(py::init(&Keyring::open), py::arg("path"), Unlocked())
      .def_static("create", &Keyring::create, py::arg("path"), Unlocked())
      .def_property_readonly("path", &Keyring::path)
      .def("create_key", &Keyring::create_key, py::arg("dataset"), Unlocked())
      .def("rotate_key", &Keyring::rotate_key, py::arg("dataset"), Unlocked())
      .def("has_key", &Keyring::has_key, py::arg("dataset"))
      .def("list", [](const Keyring& self) {
        py::list rows;
        for (const KeyInfo& key : self.list()) rows.append(key_tuple(key));
        return rows;
      });
  // What a sealed file does with a provider, for the contract tests of providers.
  m.def("wrap_for_testing",
        [](const KeyProvider& provider, const std::string& dataset, const py::bytes& data_key) {
          const auto bytes = view(data_key);
          WrappedKey wrapped;
          {
            const py::gil_scoped_release unlocked;
            wrapped = provider.wrap(dataset, bytes);
          }
          return py::make_tuple(wrapped.key_id, to_bytes(wrapped.bytes), wrapped.generation);
        },
        py::arg("provider"), py::arg("dataset"), py::arg("data_key"));
  m.def("unwraps_to_for_testing",
        [](const KeyProvider& provider, const std::string& key_id, const py::bytes& bytes, std::uint64_t generation,
           const py::bytes& data_key) {
          const auto wrapped = view(bytes), expected = view(data_key);
          const py::gil_scoped_release unlocked;
          const SecretBytes found = provider.unwrap({key_id, {wrapped.begin(), wrapped.end()}, generation});
          return equal_in_constant_time(found.bytes(), expected);
        },
        py::arg("provider"), py::arg("key_id"), py::arg("wrapped"), py::arg("generation"), py::arg("data_key"));
}

}  // namespace hushgrad::python
