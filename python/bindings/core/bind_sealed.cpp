#include "core/bind.h"

namespace hushgrad::python {

void bind_sealed(pybind11::module_&) {}

}  // namespace hushgrad::python
