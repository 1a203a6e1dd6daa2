#include <torch/csrc/utils/pybind.h>

#include "torch_ext/checkpoint/tensor_codec.h"

namespace py = pybind11;

namespace hushgrad::python {
namespace {

SealedCore core_from(const py::dict& d) {
  SealedCore core;
  core.dataset = d["dataset"].cast<std::string>();
  core.run_id = d["run_id"].cast<std::string>();
  core.step = d["step"].cast<std::int64_t>();
  core.plan_json = d["plan_json"].cast<std::string>();
  core.ledger_sequence = d["ledger_sequence"].cast<std::int64_t>();
  core.ledger_hash = d["ledger_hash"].cast<std::string>();
  core.epsilon_json = d["epsilon_json"].cast<std::string>();
  return core;
}

py::dict core_to(const SealedCore& core) {
  py::dict d;
  d["dataset"] = core.dataset;
  d["run_id"] = core.run_id;
  d["step"] = core.step;
  d["plan_json"] = core.plan_json;
  d["ledger_sequence"] = core.ledger_sequence;
  d["ledger_hash"] = core.ledger_hash;
  d["epsilon_json"] = core.epsilon_json;
  return d;
}

}  // namespace

void bind_checkpoint(py::module_& m) {
  m.def("save_tensors",
        [](const std::string& path, const py::dict& core_dict, const std::string& meta_json, const NamedTensors& tensors,
           const std::string& keyring, bool overwrite) {
          const SealedCore core = core_from(core_dict);
          py::gil_scoped_release unlocked;
          save_tensors(path, core, meta_json, tensors, Keyring::open(keyring), overwrite);
        },
        py::arg("path"), py::arg("core"), py::arg("meta_json"), py::arg("tensors"), py::arg("keyring"), py::arg("overwrite"));
  m.def("load_tensors",
        [](const std::string& path, const std::string& keyring) {
          LoadedTensors loaded;
          {
            py::gil_scoped_release unlocked;
            loaded = load_tensors(path, Keyring::open(keyring));
          }
          return py::make_tuple(core_to(loaded.core), loaded.meta_json, loaded.tensors);
        },
        py::arg("path"), py::arg("keyring"));
}

}  // namespace hushgrad::python
