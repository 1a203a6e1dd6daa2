// _torch: what Python sees of torch_ext. No logic. The GIL is released around everything that may run the autograd
// engine, which refuses to be called with it.
#include <torch/csrc/utils/pybind.h>

#include <map>

#include "accounting/access/run_approvals.h"
#include "bind_errors.h"
#include "bind_identity.h"
#include "dpcore/error.h"
#include "torch_ext/checkpoint/recorded.h"
#include "torch_ext/distributed/ranks.h"
#include "torch_ext/private_training.h"

namespace py = pybind11;

namespace hushgrad::python {


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
      .def("expect", [](const LedgerHandle& h, std::int64_t sequence, const std::string& hash) { return h.ledger->expect({sequence, hash}); })
      .def("identify", [](const LedgerHandle& h, const py::object& capsule) { h.ledger->identify(identity_in(capsule)); }, py::arg("capsule"))
      .def("present_for_run",
           [](const LedgerHandle& h, const std::vector<std::string>& texts, const std::string& dataset, const std::string& purpose, const std::string& requester) {
             for (const auto& [operation, approvals] : approvals_of_run(texts, dataset, purpose, requester)) h.ledger->present(operation, approvals);
           },
           py::arg("texts"), py::arg("dataset"), py::arg("purpose"), py::arg("requester"), Unlocked())
      .def("actor", [](const LedgerHandle& h) { return h.ledger->actor(); }, Unlocked())
      .def_property_readonly("id", [](const LedgerHandle& h) { return h.ledger->id(); })
      .def("record", [](const LedgerHandle& h, const std::string& kind, const std::map<std::string, std::string>& fields) { return h.ledger->record({kind, fields}); }, Unlocked())
      .def("has_checkpoint", [](const LedgerHandle& h, const std::string& digest) { return has_checkpoint(*h.ledger, digest); }, Unlocked())
      .def("settle", [](const LedgerHandle& h) { h.ledger->settle(); }, Unlocked())
      .def("contains", [](const LedgerHandle& h, std::int64_t sequence, const std::string& hash) { return h.ledger->contains({sequence, hash}); })
      .def("spent", [](const LedgerHandle& h, const std::string& dataset, double delta) { return pair(h.ledger->spent(dataset, delta)); }, Unlocked())
      .def("dataset_history", [](const LedgerHandle& h, const std::string& dataset) { return h.ledger->dataset_history(dataset).to_json(); });
}

Clipping clipping_from(const std::string& name) {
  if (name == "flat") return Clipping::flat;
  if (name == "per_layer") return Clipping::per_layer;
  if (name == "automatic") return Clipping::automatic;
  if (name == "adaptive") return Clipping::adaptive;
  throw InvalidArgument(message("[make_private] Expected clipping to be \"flat\", \"per_layer\", \"automatic\" or \"adaptive\", received \"", name, "\"."));
}

void bind_adaptive(py::module_& m) {
  py::class_<AdaptiveClippingOptions>(m, "AdaptiveClippingOptions")
      .def(py::init([](double target_unclipped_quantile, double clipbound_learning_rate, double min_clipbound, double max_clipbound,
                       double unclipped_num_std) {
             AdaptiveClippingOptions options{target_unclipped_quantile, clipbound_learning_rate, min_clipbound, max_clipbound, unclipped_num_std};
             options.check();
             return options;
           }),
           py::kw_only(), py::arg("target_unclipped_quantile"), py::arg("clipbound_learning_rate"), py::arg("min_clipbound"),
           py::arg("max_clipbound"), py::arg("unclipped_num_std"));
}

BatchLaw law_from(const std::string& sampling, std::int64_t population, std::int64_t batch_size, std::int64_t max_batch_size,
                  const std::optional<std::vector<std::int64_t>>& owners, std::int64_t max_records_per_user) {
  BatchLaw law{sampling_from(sampling), population, batch_size, max_batch_size};
  if (owners) law.users = std::make_shared<const UserRecords>(*owners, max_records_per_user);
  law.check();
  return law;
}

void bind_plan(py::module_& m) {
  py::class_<TrainingPlan>(m, "TrainingPlan")
      .def(py::init([](double noise_multiplier, double max_grad_norm, const std::string& sampling, std::int64_t dataset_size,
                       std::int64_t batch_size, std::int64_t max_batch_size, const std::optional<std::vector<std::int64_t>>& owners,
                       std::int64_t max_records_per_user, bool mean, bool batch_first, bool forward_is_checked, std::optional<double> target_delta,
                       std::optional<double> target_epsilon, std::string dataset, std::string purpose, std::string actor,
                       const std::string& clipping, std::vector<double> layer_norms, std::vector<std::size_t> layer_of,
                       std::optional<AdaptiveClippingOptions> adaptive, bool unchecked_loss, bool certified, bool exact_noise,
                       std::optional<std::uint64_t> insecure_seed, std::vector<std::size_t> parameter_sizes) {
             BatchLaw law = law_from(sampling, dataset_size, batch_size, max_batch_size, owners, max_records_per_user);
             const double expected_batch_size = law.expected_batch_size();
             TrainingPlan plan{noise_multiplier, max_grad_norm, expected_batch_size, std::move(law), mean ? LossReduction::mean : LossReduction::sum, batch_first, forward_is_checked,
                               target_delta, target_epsilon, std::move(dataset), std::move(purpose), std::move(actor),
                               clipping_from(clipping), std::move(layer_norms), std::move(layer_of),
                               adaptive.value_or(AdaptiveClippingOptions{}), unchecked_loss,
                               certified ? Sensitivity::certified : Sensitivity::empirical,
                               exact_noise ? NoiseSampler::exact : NoiseSampler::fast, insecure_seed, std::move(parameter_sizes)};
             plan.check();
             return plan;
           }),
           py::kw_only(), py::arg("noise_multiplier"), py::arg("max_grad_norm"), py::arg("sampling"),
           py::arg("dataset_size"), py::arg("batch_size"), py::arg("max_batch_size"), py::arg("owners"), py::arg("max_records_per_user"),
           py::arg("mean"), py::arg("batch_first"), py::arg("forward_is_checked"), py::arg("target_delta"),
           py::arg("target_epsilon"), py::arg("dataset"), py::arg("purpose"), py::arg("actor"), py::arg("clipping"),
           py::arg("layer_norms"), py::arg("layer_of"), py::arg("adaptive"), py::arg("unchecked_loss"), py::arg("certified"),
           py::arg("exact_noise"), py::arg("insecure_seed"), py::arg("parameter_sizes"))
      .def("to_json", &TrainingPlan::to_json)
      .def("charged_event", [](const TrainingPlan& plan) { return plan.charged_event().to_json(); })
      .def("charged_event_of", [](const TrainingPlan& plan, std::int64_t epochs) { return plan.charged_event_of(epochs).to_json(); }, py::arg("epochs"))
      .def("calibrated_noise", &TrainingPlan::calibrated_noise, py::arg("target_epsilon"), py::arg("target_delta"), py::arg("epochs"), Unlocked())
      .def_property_readonly("charged_once_an_epoch", [](const TrainingPlan& plan) { return plan.batches.charged_once_an_epoch(); })
      .def_property_readonly("expected_batch_size", [](const TrainingPlan& plan) { return plan.expected_batch_size; })
      .def_property_readonly("steps_per_epoch", [](const TrainingPlan& plan) { return plan.batches.steps_per_epoch(); });
}

// Clipping alone, for tests and benchmarks: what it returns is data and must not be released.
void bind_capture(py::module_& m) {
  py::class_<GraphCapture>(m, "UnnoisedCaptureForTesting")
      .def(py::init([](std::vector<at::Tensor> parameters, std::vector<std::string> names, double max_grad_norm, bool mean, bool batch_first,
                       bool forward_is_checked, bool normalise, std::vector<double> group_norms, std::vector<std::size_t> group_of) {
             return std::make_unique<GraphCapture>(
                 std::move(parameters), std::move(names), std::vector<at::Tensor>{},
                 CaptureOptions{max_grad_norm, mean ? LossReduction::mean : LossReduction::sum, batch_first, forward_is_checked,
                                normalise ? ClippingFunction::normalise : ClippingFunction::clip, std::move(group_norms), std::move(group_of)});
           }),
           py::arg("parameters"), py::arg("names"), py::arg("max_grad_norm"), py::arg("mean"), py::arg("batch_first"),
           py::arg("forward_is_checked") = false, py::arg("normalise") = false, py::arg("group_norms") = std::vector<double>{},
           py::arg("group_of") = std::vector<std::size_t>{}, Unlocked())
      .def("begin_batch", &GraphCapture::begin_batch)
      .def("watch", &GraphCapture::watch, Unlocked())
      .def_property_readonly("needs_derivatives", &GraphCapture::needs_derivatives)
      .def("check_derivatives", &GraphCapture::check_derivatives, py::arg("outputs"), py::arg("of_part") = false, Unlocked())
      .def("check_loss", &GraphCapture::check_loss, py::arg("losses"), py::arg("gradients"), Unlocked())
      .def("accumulate", &GraphCapture::accumulate, Unlocked())
      .def("discard", &GraphCapture::discard, py::arg("all"))
      .def("finish", [](GraphCapture& capture) {
        py::gil_scoped_release unlocked;
        capture.finish();
        return capture.take_sums();
      });
}

void bind_ranks(py::module_& m) {
  py::class_<Ranks, std::shared_ptr<Ranks>>(m, "Ranks")
      .def(py::init(&Ranks::named), py::arg("group_name"), Unlocked())
      .def_property_readonly("rank", &Ranks::rank)
      .def_property_readonly("size", &Ranks::size)
      .def_property_readonly("first", &Ranks::first);
}

void bind_training(py::module_& m) {
  py::class_<PrivateTraining>(m, "PrivateTraining")
      .def(py::init([](const TrainingPlan& plan, std::vector<at::Tensor> parameters, std::vector<std::string> names,
                       std::vector<at::Tensor> ignored, const LedgerHandle& ledger, std::shared_ptr<Ranks> ranks) {
             return std::make_unique<PrivateTraining>(plan, std::move(parameters), std::move(names), std::move(ignored), ledger.ledger, std::move(ranks));
           }),
           py::arg("plan"), py::arg("parameters"), py::arg("names"), py::arg("ignored"), py::arg("ledger"), py::arg("ranks") = nullptr, Unlocked())
      .def("draw", [](PrivateTraining& t) {
        PrivateTraining::Draw draw = t.draw();
        const bool users = t.plan().batches.sampling == Sampling::users;
        return py::make_tuple(draw.epoch, std::move(draw.records), users ? py::cast(std::move(draw.sizes)) : py::none());
      })
      .def("begin_epoch", &PrivateTraining::begin_epoch)
      .def("begin_batch", &PrivateTraining::begin_batch, py::arg("size"), py::arg("epoch"))
      .def("watch", &PrivateTraining::watch, py::arg("outputs"), Unlocked())
      .def_property_readonly("suspicion", &PrivateTraining::suspicion)
      .def_property_readonly("needs_derivatives", &PrivateTraining::needs_derivatives)
      .def("check_derivatives", &PrivateTraining::check_derivatives, py::arg("outputs"), py::arg("of_part") = false, Unlocked())
      .def_property_readonly("has_gradients", &PrivateTraining::has_gradients)
      .def("check_loss", &PrivateTraining::check_loss, py::arg("losses"), py::arg("gradients"), Unlocked())
      .def("set_noise_multiplier", &PrivateTraining::set_noise_multiplier, py::arg("noise_multiplier"))
      .def("set_max_grad_norm", &PrivateTraining::set_max_grad_norm, py::arg("max_grad_norm"))
      .def_property_readonly("max_grad_norm", &PrivateTraining::max_grad_norm)
      .def_property_readonly("noise_multiplier", [](const PrivateTraining& t) { return t.plan().noise_multiplier; })
      .def("accumulate", &PrivateTraining::accumulate, Unlocked())
      .def("discard", &PrivateTraining::discard, py::arg("all"))
      .def("step", &PrivateTraining::step, Unlocked())
      .def("epsilon", [](const PrivateTraining& t, double delta) { return pair(t.epsilon(delta)); }, py::arg("delta"), Unlocked())
      .def("finish", &PrivateTraining::finish, py::arg("status"), Unlocked())
      .def("history", [](const PrivateTraining& t) { return t.history().to_json(); })
      .def_property_readonly("target_delta", [](const PrivateTraining& t) { return t.plan().target_delta; })
      .def_property_readonly("plan_json", [](const PrivateTraining& t) { return t.plan().to_json(); })
      .def_property_readonly("steps", &PrivateTraining::steps)
      .def_property_readonly("charges", &PrivateTraining::charges)
      .def_property_readonly("run_id", &PrivateTraining::run_id);
}

}  // namespace
}  // namespace hushgrad::python

PYBIND11_MODULE(_torch, m) {
  m.doc() = "Bindings of torch_ext; use the hushgrad package instead.";
  hushgrad::python::bind_errors();
  hushgrad::python::bind_ledger_handle(m);
  hushgrad::python::bind_adaptive(m);
  hushgrad::python::bind_plan(m);
  hushgrad::python::bind_capture(m);
  hushgrad::python::bind_ranks(m);
  hushgrad::python::bind_training(m);
}
