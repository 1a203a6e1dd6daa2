#include <pybind11/stl.h>

#include "accounting/build_facts.h"
#include "core/bind.h"

namespace hushgrad::python {

void bind_build_facts(pybind11::module_& m) {
  m.def("build_facts", [] {
    pybind11::dict facts;
    for (const auto& [name, value] : build_facts()) facts[pybind11::str(name)] = value;
    return facts;
  });
}

}  // namespace hushgrad::python
