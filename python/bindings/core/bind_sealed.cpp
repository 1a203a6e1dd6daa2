// dpcore/sealed: tensors cross as buffers (anything with Python's buffer protocol), the core as a dict.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "core/bind.h"
#include "dpcore/error.h"
#include "dpcore/sealed/sealed_file.h"

namespace hushgrad::python {
namespace {

namespace py = pybind11;
using Unlocked = py::call_guard<py::gil_scoped_release>;

// Names, dtype, shape, buffer.
using NamedBuffer = std::tuple<std::string, std::string, std::vector<std::int64_t>, py::buffer>;

// A C-contiguous view of a Python object's memory, held until destruction; PyBUF_WRITABLE asks for one to
// write to.
class View {
 public:
  View(const py::buffer& object, int flags) {
    if (PyObject_GetBuffer(object.ptr(), &view_, PyBUF_C_CONTIGUOUS | flags) != 0) {
      PyErr_Clear();
      throw InvalidArgument(
          "[sealed] Expected a contiguous buffer (writable, to read into it), received another. "
          "Pass a contiguous array.");
    }
  }
  ~View() { PyBuffer_Release(&view_); }
  View(const View&) = delete;
  View& operator=(const View&) = delete;
  std::span<std::byte> bytes() const {
    return {static_cast<std::byte*>(view_.buf), static_cast<std::size_t>(view_.len)};
  }

 private:
  Py_buffer view_;
};

SealedCore core_from(const py::dict& fields) {
  SealedCore core;
  std::size_t known = 0;
  const auto take = [&](const char* name, auto& field) {
    if (!fields.contains(name)) return;
    field = fields[name].cast<std::decay_t<decltype(field)>>();
    ++known;
  };
  take("dataset", core.dataset);
  take("run_id", core.run_id);
  take("step", core.step);
  take("plan_json", core.plan_json);
  take("ledger_sequence", core.ledger_sequence);
  take("ledger_hash", core.ledger_hash);
  take("epsilon_json", core.epsilon_json);
  if (known != fields.size()) {
    throw InvalidArgument("[write_sealed] Expected only the fields of the core, received others.");
  }
  return core;
}

py::dict core_to(const SealedCore& core) {
  using namespace pybind11::literals;
  return py::dict("dataset"_a = core.dataset, "run_id"_a = core.run_id, "step"_a = core.step,
                  "plan_json"_a = core.plan_json, "ledger_sequence"_a = core.ledger_sequence,
                  "ledger_hash"_a = core.ledger_hash, "epsilon_json"_a = core.epsilon_json);
}

void write(const std::string& path, const py::dict& core, const std::string& meta_json,
           const std::vector<NamedBuffer>& tensors, const Keyring& keyring, bool overwrite) {
  const SealedCore fields = core_from(core);
  std::vector<std::unique_ptr<View>> views;
  std::vector<SealedTensor> parts;
  for (const auto& [name, dtype, shape, buffer] : tensors) {
    views.push_back(std::make_unique<View>(buffer, PyBUF_SIMPLE));
    parts.push_back({name, dtype, shape, views.back()->bytes()});
  }
  py::gil_scoped_release release;
  write_sealed(path, fields, meta_json, parts, keyring, overwrite ? IfExists::replace : IfExists::refuse);
}

py::bytes read(const SealedReader& self, const std::string& name) {
  const SealedReader::Entry& entry = self.entry(name);
  // Nobody else knows the new object yet, so it may be filled without the GIL.
  auto out = py::reinterpret_steal<py::bytes>(
      PyBytes_FromStringAndSize(nullptr, static_cast<py::ssize_t>(entry.end - entry.begin)));
  if (!out) throw py::error_already_set();
  const std::span<char> room(PyBytes_AS_STRING(out.ptr()), static_cast<std::size_t>(entry.end - entry.begin));
  py::gil_scoped_release release;
  self.read(entry, std::as_writable_bytes(room));
  return out;
}

void read_into(const SealedReader& self, const std::string& name, const py::buffer& out) {
  const View view(out, PyBUF_WRITABLE);
  py::gil_scoped_release release;
  self.read(self.entry(name), view.bytes());
}

}  // namespace

void bind_sealed(py::module_& m) {
  m.def("write_sealed", &write, py::arg("path"), py::arg("core"), py::arg("meta_json"), py::arg("tensors"),
        py::arg("keyring"), py::arg("overwrite") = false,
        "Seals [(name, dtype, shape, buffer)] and a JSON text under the key of core['dataset']; see "
        "docs/formats/sealed_file.md.");
  m.def(
      "inspect_sealed",
      [](const std::string& path) {
        SealedCore core;
        {
          py::gil_scoped_release release;
          core = inspect_sealed(path);
        }
        return core_to(core);
      },
      py::arg("path"),
      "The core a file claims, without a key: UNAUTHENTICATED, never a basis for a decision.");
  py::class_<SealedReader::Entry>(m, "SealedEntry")
      .def_readonly("name", &SealedReader::Entry::name)
      .def_readonly("dtype", &SealedReader::Entry::dtype)
      .def_readonly("shape", &SealedReader::Entry::shape)
      .def_readonly("begin", &SealedReader::Entry::begin)
      .def_readonly("end", &SealedReader::Entry::end);
  py::class_<SealedReader>(m, "SealedReader", "An open sealed file whose header is authentic.")
      .def(py::init<const std::string&, const Keyring&>(), py::arg("path"), py::arg("keyring"), Unlocked())
      .def_property_readonly("core", [](const SealedReader& self) { return core_to(self.core()); })
      .def_property_readonly("meta_json", &SealedReader::meta_json)
      .def_property_readonly("tensors", &SealedReader::tensors)
      .def("read", &read, py::arg("name"), "The bytes of a tensor.")
      .def("read_into", &read_into, py::arg("name"), py::arg("out"),
           "Fills a writable buffer of the tensor's length.")
      .def("verify_all", &SealedReader::verify_all, Unlocked(), "Authenticates every segment of the file.");
}

}  // namespace hushgrad::python
