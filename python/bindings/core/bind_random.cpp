#include "core/bind.h"

namespace hushgrad::python {

void bind_random(pybind11::module_&) {}

}  // namespace hushgrad::python
