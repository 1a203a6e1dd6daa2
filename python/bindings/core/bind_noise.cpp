#include "core/bind.h"

namespace hushgrad::python {

void bind_noise(pybind11::module_&) {}

}  // namespace hushgrad::python
