// dpcore/sealed archives for hushgrad.sealed.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bind_core_dict.h"
#include "core/bind.h"
#include "core/progress.h"
#include "dpcore/sealed/archive.h"
#include "dpcore/sealed/ephemeral_keys.h"

namespace hushgrad::python {
namespace {

namespace py = pybind11;
using Unlocked = py::call_guard<py::gil_scoped_release>;

std::unique_ptr<SealedWriter> seal(const std::string& source, const std::string& target, const py::dict& core,
                                   const KeyProvider& keys, bool overwrite, const SigningKey* identity,
                                   const py::object& progress) {
  const SealedCore fields = core_from(core);
  const SealOptions options{overwrite ? IfExists::replace : IfExists::refuse, identity, 0, progress_of(progress)};
  py::gil_scoped_release release;
  return std::make_unique<SealedWriter>(seal_path(source, target, fields, keys, options));
}

void open(const std::string& sealed, const std::string& target, const KeyProvider& keys, bool overwrite,
          const PublicKey* writer, const py::object& progress) {
  const OpenOptions options{overwrite ? IfExists::replace : IfExists::refuse, writer, progress_of(progress)};
  py::gil_scoped_release release;
  open_archive(sealed, target, keys, options);
}

std::vector<std::pair<std::string, std::uint64_t>> list(const std::string& sealed, const KeyProvider& keys) {
  const SealedReader reader(sealed, keys);
  std::vector<std::pair<std::string, std::uint64_t>> files;
  for (const Archive::File& file : parse_archive(reader.meta_json(), reader.tensors()).files) {
    files.emplace_back(file.path, file.bytes);
  }
  return files;
}

}  // namespace

void bind_archive(py::module_& m) {
  m.def("seal_path", &seal, py::arg("source"), py::arg("target"), py::arg("core"), py::arg("keyring"),
        py::arg("overwrite") = false, py::arg("identity") = py::none(), py::arg("progress") = py::none(),
        "Seals a file or folder; publish() makes it visible.");
  m.def("open_archive", &open, py::arg("sealed"), py::arg("target"), py::arg("keyring"), py::arg("overwrite") = false,
        py::arg("writer") = py::none(), py::arg("progress") = py::none(), "Opens what seal_path() made.");
  m.def("list_archive", &list, py::arg("sealed"), py::arg("keyring"), Unlocked(), "Path and size of every file.");
  py::class_<EphemeralKeys, KeyProvider>(m, "EphemeralKeys", "One key in memory that dies with this object.")
      .def(py::init<>())
      .def("destroy", &EphemeralKeys::destroy, "Wipes the key: what it sealed stays sealed for good.");
}

}  // namespace hushgrad::python
