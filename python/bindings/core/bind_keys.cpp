#include "core/bind.h"

namespace hushgrad::python {

void bind_keys(pybind11::module_&) {}

}  // namespace hushgrad::python
