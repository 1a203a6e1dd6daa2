// dpcore/keys/signing for hushgrad.signing. Private keys never cross into Python.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "core/bind.h"
#include "core/bytes_argument.h"
#include "dpcore/keys/signing.h"

namespace hushgrad::python {

namespace py = pybind11;

void bind_signing(py::module_& m) {
  py::class_<PublicKey>(m, "PublicKey", "A public key; use hushgrad.signing.PublicKey instead.")
      .def_static("from_pem", &PublicKey::from_pem, py::arg("pem"))
      .def_property_readonly("pem", &PublicKey::pem)
      .def_property_readonly("id", &PublicKey::id)
      .def_property_readonly("algorithm", [](const PublicKey& self) { return to_string(self.algorithm()); })
      .def("verify",
           [](const PublicKey& self, const std::string& context, const py::bytes& message, const py::bytes& signature) {
             return self.verify(context, view(message), view(signature));
           },
           py::arg("context"), py::arg("message"), py::arg("signature"));
  py::class_<SigningKey, std::shared_ptr<SigningKey>>(m, "SigningKey", "A private key; use hushgrad.signing.SigningKey instead.")
      .def_static("generate", [](const std::string& name) { return SigningKey::generate(signature_algorithm(name)); },
                  py::arg("algorithm"))
      .def_static("load",
                  [](const std::string& path, const std::optional<py::bytes>& passphrase) {
                    return SigningKey::load(path, optional_view(passphrase));
                  },
                  py::arg("path"), py::arg("passphrase") = py::none())
      .def("save",
           [](const SigningKey& self, const std::string& path, const std::optional<py::bytes>& passphrase) {
             self.save(path, optional_view(passphrase));
           },
           py::arg("path"), py::arg("passphrase") = py::none())
      .def_property_readonly("public_key", [](const SigningKey& self) { return self.public_key(); })
      .def("sign",
           [](const SigningKey& self, const std::string& context, const py::bytes& message) {
             return to_bytes(self.sign(context, view(message)));
           },
           py::arg("context"), py::arg("message"));
}

}  // namespace hushgrad::python
