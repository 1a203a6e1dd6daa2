// dpcore/sealed: tensors cross as buffers (anything with Python's buffer protocol), the core as a dict.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bind_core_dict.h"
#include "core/bind.h"
#include "core/progress.h"
#include "dpcore/error.h"
#include "dpcore/sealed/rewrap.h"
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

std::unique_ptr<SealedWriter> write(const std::string& path, const py::dict& core, const std::string& meta_json,
                                    const std::vector<NamedBuffer>& tensors, const KeyProvider& keyring, bool overwrite,
                                    const SigningKey* identity, int threads, const py::object& progress) {
  const SealedCore fields = core_from(core);
  std::vector<std::unique_ptr<View>> views;
  std::vector<SealedTensor> parts;
  for (const auto& [name, dtype, shape, buffer] : tensors) {
    views.push_back(std::make_unique<View>(buffer, PyBUF_SIMPLE));
    parts.push_back({name, dtype, shape, views.back()->bytes()});
  }
  const SealOptions options{overwrite ? IfExists::replace : IfExists::refuse, identity, threads, progress_of(progress)};
  py::gil_scoped_release release;
  return std::make_unique<SealedWriter>(path, fields, meta_json, parts, keyring, options);
}

void read_all(const SealedReader& self, const std::vector<py::buffer>& outs, int threads, const py::object& progress) {
  std::vector<std::unique_ptr<View>> views;
  std::vector<std::span<std::byte>> rooms;
  for (const py::buffer& out : outs) {
    views.push_back(std::make_unique<View>(out, PyBUF_WRITABLE));
    rooms.push_back(views.back()->bytes());
  }
  const Progress report = progress_of(progress);
  py::gil_scoped_release release;
  self.read_all(rooms, threads, report);
}

void read_some(const SealedReader& self, const std::vector<std::string>& names, const std::vector<py::buffer>& outs) {
  std::vector<std::unique_ptr<View>> views;
  std::vector<std::span<std::byte>> rooms;
  for (const py::buffer& out : outs) {
    views.push_back(std::make_unique<View>(out, PyBUF_WRITABLE));
    rooms.push_back(views.back()->bytes());
  }
  py::gil_scoped_release release;
  self.read_some(names, rooms);
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

py::dict appearance(const std::string& path) {
  SealedAppearance seen;
  {
    py::gil_scoped_release release;
    seen = appearance_of(path);
  }
  using namespace pybind11::literals;
  return py::dict("core"_a = core_to(seen.core), "digest"_a = seen.digest, "signed"_a = seen.is_signed,
                  "key_id"_a = seen.key_id, "generation"_a = seen.generation, "damaged_slot"_a = seen.damaged_slot);
}

py::dict rewrap_file(const std::string& path, const KeyProvider& keys, const KeyProvider* to) {
  Rewrapped done;
  {
    py::gil_scoped_release release;
    done = rewrap(path, keys, to ? *to : keys);
  }
  using namespace pybind11::literals;
  return py::dict("changed"_a = done.changed, "from"_a = done.from, "to"_a = done.to, "generation"_a = done.generation);
}

}  // namespace

void bind_sealed(py::module_& m) {
  py::class_<SealedWriter>(m, "SealedWriter",
                           "A sealed file that is written under a temporary name; publish() gives it its own.")
      .def(py::init(&write), py::arg("path"), py::arg("core"), py::arg("meta_json"), py::arg("tensors"),
           py::arg("keyring"), py::arg("overwrite") = false, py::arg("identity") = py::none(), py::arg("threads") = 0,
           py::arg("progress") = py::none(),
           "Seals [(name, dtype, shape, buffer)] and a JSON text under the key of core['dataset']; see "
           "docs/formats/sealed_file.md.")
      .def_property_readonly("digest", &SealedWriter::digest, "96 hex digits that name exactly this file.")
      .def("publish", &SealedWriter::publish, Unlocked(), "Makes the file durable and visible. Once.");
  m.def(
      "write_sealed",
      [](const std::string& path, const py::dict& core, const std::string& meta_json,
         const std::vector<NamedBuffer>& tensors, const KeyProvider& keyring, bool overwrite) {
        const auto writer = write(path, core, meta_json, tensors, keyring, overwrite, nullptr, 0, py::none());
        py::gil_scoped_release release;
        writer->publish();
      },
      py::arg("path"), py::arg("core"), py::arg("meta_json"), py::arg("tensors"), py::arg("keyring"),
      py::arg("overwrite") = false, "SealedWriter and publish() at once, unsigned.");
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
  m.def("appearance_of_sealed", &appearance, py::arg("path"),
        "Core, digest, whether signed, key id, generation and whether a key slot is damaged: UNAUTHENTICATED.");
  m.def("verify_sealed_manifest",
        py::overload_cast<const std::string&, const PublicKey&>(&verify_manifest), py::arg("path"),
        py::arg("public_key"), Unlocked(), "Checks the signature of the whole file without a secret key. SealError.");
  m.def("rewrap_sealed", &rewrap_file, py::arg("path"), py::arg("keyring"), py::arg("to") = py::none(),
        "Wraps the data key anew under the dataset's active key; the data stays as it is.");
  py::class_<SealedReader::Entry>(m, "SealedEntry")
      .def_readonly("name", &SealedReader::Entry::name)
      .def_readonly("dtype", &SealedReader::Entry::dtype)
      .def_readonly("shape", &SealedReader::Entry::shape)
      .def_readonly("begin", &SealedReader::Entry::begin)
      .def_readonly("end", &SealedReader::Entry::end);
  py::class_<SealedReader>(m, "SealedReader", "An open sealed file whose header is authentic.")
      .def(py::init<const std::string&, const KeyProvider&>(), py::arg("path"), py::arg("keyring"), Unlocked())
      .def_property_readonly("core", [](const SealedReader& self) { return core_to(self.core()); })
      .def_property_readonly("meta_json", &SealedReader::meta_json)
      .def_property_readonly("tensors", &SealedReader::tensors)
      .def_property_readonly("digest", &SealedReader::digest, "96 hex digits that name exactly this file.")
      .def_property_readonly("is_signed", &SealedReader::is_signed)
      .def_property_readonly(
          "key_id", [](const SealedReader& self) { return self.slots().active->key.key_id; },
          "The key that wraps the data key.")
      .def_property_readonly(
          "generation", [](const SealedReader& self) { return self.slots().active->generation; },
          "How often the data key was wrapped.")
      .def("verify_manifest", &SealedReader::verify_manifest, py::arg("public_key"), Unlocked(),
           "Checks that this identity signed exactly this file, and every segment from here on. SealError.")
      .def("trust_digest", &SealedReader::trust_digest, Unlocked(),
           "For who knows from elsewhere that digest is right: checks every segment against it from here on.")
      .def("read", &read, py::arg("name"), "The bytes of a tensor.")
      .def("read_into", &read_into, py::arg("name"), py::arg("out"),
           "Fills a writable buffer of the tensor's length.")
      .def(
          "pin",
          [](SealedReader& self, const py::object& progress) {
            const Progress report = progress_of(progress);
            py::gil_scoped_release release;
            self.pin(report);
          },
          py::arg("progress") = py::none(),
          "Authenticates every segment now, and hands out only what it saw from here on.")
      .def("read_some", &read_some, py::arg("names"), py::arg("outs"),
           "Fills one writable buffer for each named tensor. On error all of them are zeroed.")
      .def("read_all", &read_all, py::arg("outs"), py::arg("threads") = 0, py::arg("progress") = py::none(),
           "Fills one writable buffer a tensor, in order, and authenticates the whole file.")
      .def(
          "verify_all",
          [](const SealedReader& self, const py::object& progress) {
            const Progress report = progress_of(progress);
            py::gil_scoped_release release;
            self.verify_all(report);
          },
          py::arg("progress") = py::none(), "Authenticates every segment of the file.");
}

}  // namespace hushgrad::python
