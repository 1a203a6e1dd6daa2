// accounting/event.h, accounting/accountants, accounting/calibrate.h for hushgrad.accounting.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "accounting/accountants/accountant.h"
#include "accounting/calibrate.h"
#include "accounting/event.h"
#include "core/bind.h"

namespace hushgrad::python {
namespace {

namespace py = pybind11;
using Unlocked = py::call_guard<py::gil_scoped_release>;

// The arguments of the Python class of that name, in order.
py::tuple fields(const Event& event) {
  py::list values;
  for (const Event::Field& field : event.fields()) {
    switch (field.type) {
      case Event::FieldType::number: values.append(event.number(field.name)); break;
      case Event::FieldType::integer: values.append(event.integer(field.name)); break;
      case Event::FieldType::numbers: values.append(event.numbers(field.name)); break;
      case Event::FieldType::integers: values.append(event.integers(field.name)); break;
      case Event::FieldType::event: values.append(event.inner()); break;
      case Event::FieldType::events: values.append(event.events()); break;
      case Event::FieldType::text: values.append(event.reason()); break;
    }
  }
  return py::tuple(values);
}

}  // namespace

void bind_accounting(py::module_& m) {
  py::class_<Event>(m, "Event", "An event as C++ sees it; use the classes of hushgrad.accounting instead.")
      .def_static("gaussian", &Event::gaussian)
      .def_static("laplace", &Event::laplace)
      .def_static("discrete_gaussian", &Event::discrete_gaussian)
      .def_static("mixture_of_gaussians", &Event::mixture_of_gaussians)
      .def_static("poisson_sampled", &Event::poisson_sampled)
      .def_static("truncated_subsampled_gaussian", &Event::truncated_subsampled_gaussian)
      .def_static("sampled_without_replacement", &Event::sampled_without_replacement)
      .def_static("shuffled_epoch", &Event::shuffled_epoch)
      .def_static("balls_in_bins", &Event::balls_in_bins)
      .def_static("matrix_factorization", &Event::matrix_factorization)
      .def_static("tree_aggregation", &Event::tree_aggregation)
      .def_static("group", &Event::group)
      .def_static("adaptive_clipping", &Event::adaptive_clipping)
      .def_static("repeat_and_select", &Event::repeat_and_select)
      .def_static("finite_precision", &Event::finite_precision)
      .def_static("self_composed", &Event::self_composed)
      .def_static("composed", &Event::composed)
      .def_static("no_op", &Event::no_op)
      .def_static("non_private", &Event::non_private)
      .def_static("unsupported", &Event::unsupported)
      .def_static("from_json", &Event::from_json, Unlocked())
      .def("to_json", &Event::to_json, Unlocked())
      .def_property_readonly("type_name", &Event::type_name)
      .def("fields", &fields)
      .def(py::pickle([](const Event& event) { return event.to_json(); },
                      [](const std::string& json) { return Event::from_json(json); }));
  m.def("epsilon",
        [](const Event& event, double delta, const std::string& accountant, const std::string& adjacency) {
          py::gil_scoped_release release;
          const Interval interval = epsilon(event, delta, accountant, adjacency_named(adjacency));
          return std::pair(interval.lower, interval.upper);
        });
  m.def("delta",
        [](const Event& event, double epsilon, const std::string& accountant, const std::string& adjacency) {
          py::gil_scoped_release release;
          const Interval interval = delta(event, epsilon, accountant, adjacency_named(adjacency));
          return std::pair(interval.lower, interval.upper);
        });
  m.def("calibrate_noise", &calibrate_noise, py::arg("target_epsilon"), py::arg("target_delta"),
        py::arg("sampling_rate"), py::arg("steps"), Unlocked());
  m.def("affordable_steps", &affordable_steps, py::arg("history"), py::arg("step"), py::arg("target_epsilon"),
        py::arg("target_delta"), Unlocked());
}

}  // namespace hushgrad::python
