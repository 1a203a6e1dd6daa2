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
  switch (event.kind()) {
    case EventKind::gaussian: return py::make_tuple(event.noise_multiplier());
    case EventKind::poisson_sampled: return py::make_tuple(event.sampling_probability(), event.inner());
    case EventKind::self_composed: return py::make_tuple(event.inner(), event.count());
    case EventKind::composed: return py::make_tuple(event.events());
    case EventKind::unsupported: return py::make_tuple(event.reason());
    case EventKind::no_op:
    case EventKind::non_private: break;
  }
  return py::tuple();
}

}  // namespace

void bind_accounting(py::module_& m) {
  py::class_<Event>(m, "Event", "An event as C++ sees it; use the classes of hushgrad.accounting instead.")
      .def_static("gaussian", &Event::gaussian)
      .def_static("poisson_sampled", &Event::poisson_sampled)
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
        [](const Event& event, double delta, const std::string& accountant) {
          py::gil_scoped_release release;
          const Interval interval = epsilon(event, delta, accountant);
          return std::pair(interval.lower, interval.upper);
        });
  m.def("delta",
        [](const Event& event, double epsilon, const std::string& accountant) {
          py::gil_scoped_release release;
          const Interval interval = delta(event, epsilon, accountant);
          return std::pair(interval.lower, interval.upper);
        });
  m.def("calibrate_noise", &calibrate_noise, py::arg("target_epsilon"), py::arg("target_delta"),
        py::arg("sampling_rate"), py::arg("steps"), Unlocked());
  m.def("affordable_steps", &affordable_steps, py::arg("history"), py::arg("step"), py::arg("target_epsilon"),
        py::arg("target_delta"), Unlocked());
}

}  // namespace hushgrad::python
