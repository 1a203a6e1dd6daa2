#include "core/bind.h"

namespace hushgrad::python {

void bind_accounting(pybind11::module_&) {}

}  // namespace hushgrad::python
