// Progress of long work, told to a Python function.
#pragma once

#include <cstdint>
#include <memory>

#include <pybind11/pybind11.h>

#include "dpcore/sealed/segments.h"

namespace hushgrad::python {

// Calls a Python function about a hundred times in all, whatever the number of segments.
inline Progress progress_of(const pybind11::object& function) {
  if (function.is_none()) return {};
  // The last copy may die on a thread without the GIL.
  std::shared_ptr<pybind11::object> held(new pybind11::object(function), [](pybind11::object* object) {
    pybind11::gil_scoped_acquire acquire;
    delete object;
  });
  return [held, shown = std::make_shared<std::uint64_t>(0)](std::uint64_t done, std::uint64_t total) {
    if (done < total && done - *shown < total / 100) return;
    *shown = done;
    pybind11::gil_scoped_acquire acquire;
    (*held)(done, total);
  };
}

}  // namespace hushgrad::python
