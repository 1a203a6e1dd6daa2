// _torch: what Python sees of torch_ext. No logic. The GIL is released around everything that may run the autograd
// engine, which refuses to be called with it.
#include <torch/csrc/utils/pybind.h>

#include "bind_errors.h"
#include "torch_ext/private_training.h"

namespace py = pybind11;

namespace hushgrad::python {

void bind_checkpoint(py::module_& m);  // torch_ext/checkpoint

namespace {

using Unlocked = py::call_guard<py::gil_scoped_release>;

struct LedgerHandle {
  std::shared_ptr<Ledger> ledger;
};

std::pair<double, double> pair(const Interval& interval) { return {interval.lower, interval.upper}; }

void bind_ledger_handle(py::module_& m) {
  py::class_<LedgerHandle>(m, "LedgerHandle")
      .def(py::init([](const std::string& path) { return LedgerHandle{Ledger::open(path)}; }), py::arg("path"), Unlocked())
      .def_property_readonly("path", [](const LedgerHandle& h) { return h.ledger->path(); })
      .def_property_readonly("durable", [](const LedgerHandle& h) { return h.ledger->durable(); })
      .def("head", [](const LedgerHandle& h) { auto head = h.ledger->head(); return std::make_pair(head.sequence, head.hash); })
      .def("contains", [](const LedgerHandle& h, std::int64_t sequence, const std::string& hash) { return h.ledger->contains({sequence, hash}); })
      .def("spent", [](const LedgerHandle& h, const std::string& dataset, double delta) { return pair(h.ledger->spent(dataset, delta)); }, Unlocked())
      .def("dataset_history", [](const LedgerHandle& h, const std::string& dataset) { return h.ledger->dataset_history(dataset).to_json(); });
}

void bind_plan(py::module_& m) {
  py::class_<TrainingPlan>(m, "TrainingPlan")
      .def(py::init([](double noise_multiplier, double max_grad_norm, double expected_batch_size, bool poisson, std::int64_t dataset_size,
                       double sampling_rate, bool mean, bool batch_first, bool forward_is_checked, std::optional<double> target_delta,
                       std::optional<double> target_epsilon, std::string dataset, std::string purpose, std::string actor) {
             TrainingPlan plan{noise_multiplier, max_grad_norm, expected_batch_size, poisson ? Sampling::poisson : Sampling::any,
                               dataset_size, sampling_rate, mean ? LossReduction::mean : LossReduction::sum, batch_first, forward_is_checked,
                               target_delta, target_epsilon, std::move(dataset), std::move(purpose), std::move(actor)};
             plan.check();
             return plan;
           }),
           py::kw_only(), py::arg("noise_multiplier"), py::arg("max_grad_norm"), py::arg("expected_batch_size"), py::arg("poisson"),
           py::arg("dataset_size"), py::arg("sampling_rate"), py::arg("mean"), py::arg("batch_first"),
           py::arg("forward_is_checked"), py::arg("target_delta"),
           py::arg("target_epsilon"), py::arg("dataset"), py::arg("purpose"), py::arg("actor"))
      .def("to_json", &TrainingPlan::to_json)
      .def("step_event", [](const TrainingPlan& plan) { return plan.step_event().to_json(); });
}

// Clipping alone, for tests and benchmarks: what it returns is data and must not be released.
void bind_capture(py::module_& m) {
  py::class_<GraphCapture>(m, "UnnoisedCaptureForTesting")
      .def(py::init([](std::vector<at::Tensor> parameters, std::vector<std::string> names, double max_grad_norm, bool mean, bool batch_first) {
             return std::make_unique<GraphCapture>(std::move(parameters), std::move(names), std::vector<at::Tensor>{},
                                                   CaptureOptions{max_grad_norm, mean ? LossReduction::mean : LossReduction::sum, batch_first});
           }),
           py::arg("parameters"), py::arg("names"), py::arg("max_grad_norm"), py::arg("mean"), py::arg("batch_first"), Unlocked())
      .def("begin_batch", &GraphCapture::begin_batch)
      .def("watch", &GraphCapture::watch, Unlocked())
      .def("accumulate", &GraphCapture::accumulate, Unlocked())
      .def("discard", &GraphCapture::discard, py::arg("all"))
      .def("finish", [](GraphCapture& capture) {
        py::gil_scoped_release unlocked;
        capture.finish();
        return capture.take_sums();
      });
}

void bind_training(py::module_& m) {
  py::class_<PrivateTraining>(m, "PrivateTraining")
      .def(py::init([](const TrainingPlan& plan, std::vector<at::Tensor> parameters, std::vector<std::string> names,
                       std::vector<at::Tensor> ignored, const LedgerHandle& ledger) {
             return std::make_unique<PrivateTraining>(plan, std::move(parameters), std::move(names), std::move(ignored), ledger.ledger);
           }),
           py::arg("plan"), py::arg("parameters"), py::arg("names"), py::arg("ignored"), py::arg("ledger"), Unlocked())
      .def("draw", &PrivateTraining::draw)
      .def("begin_batch", &PrivateTraining::begin_batch, py::arg("size"))
      .def("watch", &PrivateTraining::watch, py::arg("outputs"), Unlocked())
      .def_property_readonly("has_gradients", &PrivateTraining::has_gradients)
      .def("accumulate", &PrivateTraining::accumulate, Unlocked())
      .def("discard", &PrivateTraining::discard, py::arg("all"))
      .def("step", &PrivateTraining::step, Unlocked())
      .def("epsilon", [](const PrivateTraining& t, double delta) { return pair(t.epsilon(delta)); }, py::arg("delta"), Unlocked())
      .def("finish", &PrivateTraining::finish, py::arg("status"), Unlocked())
      .def("history", [](const PrivateTraining& t) { return t.history().to_json(); })
      .def_property_readonly("target_delta", [](const PrivateTraining& t) { return t.plan().target_delta; })
      .def_property_readonly("plan_json", [](const PrivateTraining& t) { return t.plan().to_json(); })
      .def_property_readonly("steps", &PrivateTraining::steps)
      .def_property_readonly("run_id", &PrivateTraining::run_id);
}

}  // namespace
}  // namespace hushgrad::python

PYBIND11_MODULE(_torch, m) {
  m.doc() = "Bindings of torch_ext; use the hushgrad package instead.";
  hushgrad::python::bind_errors();
  hushgrad::python::bind_ledger_handle(m);
  hushgrad::python::bind_plan(m);
  hushgrad::python::bind_capture(m);
  hushgrad::python::bind_training(m);
  hushgrad::python::bind_checkpoint(m);
}
