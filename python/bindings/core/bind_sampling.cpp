#include "core/bind.h"

namespace hushgrad::python {

void bind_sampling(pybind11::module_&) {}

}  // namespace hushgrad::python
